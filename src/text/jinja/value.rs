//! The values that templates compute with: Python's, as far as templates can make them. What they hold does not change,
//! but for the fields of a namespace and the state of a loop, so a value can hold itself through those alone.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::Macro;
use super::budget::Budget;
use super::loops::Loop;
use super::{Failure, Outcome};

/// Greatest nesting of lists and mappings.
pub(super) const DEEPEST_VALUE: usize = 300;

#[derive(Clone)]
pub(super) enum Value {
    /// A name or field that is not there, by its name.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    /// A text that `escape` or `safe` made, to which others are added escaped.
    Markup(Arc<str>),
    List(Rc<List>),
    Dict(Rc<Dict>),
    Namespace(Rc<Namespace>),
    Macro(Rc<MacroValue>),
    Loop(Rc<Loop>),
    Function(Function),
    /// A method of a value, not called yet.
    Method(Rc<(Value, Arc<str>)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    StrftimeNow,
    /// One of Jinja's that is there and has no use in chat templates.
    Unsupported(&'static str),
}

/// Which of Python's sequences a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    List,
    Tuple,
    /// A tuple of `groupby`, whose parts have names.
    Group,
    Range,
    Keys,
    Values,
    Items,
    /// Walked once, from where it was left.
    Generator,
}

pub(super) struct List {
    pub(super) items: Vec<Value>,
    pub(super) sequence: Sequence,
    depth: usize,
    /// True if it can be the key of a mapping: Python's tuples can if all of their items can.
    is_key: bool,
    /// The items of a generator that are taken; `None` of one that a filter took all of, which Jinja does later.
    taken: Cell<Option<usize>>,
}

pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    depth: usize,
    /// Which entries were read, of a mapping of which that is of interest.
    read: Option<RefCell<Vec<bool>>>,
}

#[derive(Default)]
pub(super) struct Namespace {
    pub(super) fields: RefCell<Vec<(Arc<str>, Value)>>,
}

pub(super) struct MacroValue {
    pub(super) definition: Arc<Macro>,
    pub(super) scope: Rc<Scope>,
}

/// Variables, and those around them.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) variables: RefCell<Vec<(Arc<str>, Value)>>,
    pub(super) parent: Option<Rc<Scope>>,
    /// True if a macro holds it.
    pub(super) is_held: Cell<bool>,
}

impl Scope {
    pub(super) fn inside(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { parent: Some(Rc::clone(parent)), ..Self::default() })
    }

    pub(super) fn set(&self, name: &Arc<str>, value: Value) {
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, held)) => *held = value,
            None => variables.push((Arc::clone(name), value)),
        }
    }
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(items: Vec<Value>, sequence: Sequence) -> Outcome<Self> {
        List::new(items, sequence).map(Self::List)
    }

    pub(super) fn dict(entries: Vec<(Value, Value)>) -> Outcome<Self> {
        let depth = entries.iter().map(|(key, value)| key.depth().max(value.depth())).max().unwrap_or(0) + 1;
        check_depth(depth)?;
        Ok(Self::Dict(Rc::new(Dict { entries, depth, read: None })))
    }

    /// The same mapping, which notes what is read of it.
    pub(super) fn watched(self) -> Self {
        match self {
            Self::Dict(dict) => {
                let read = Some(RefCell::new(vec![false; dict.entries.len()]));
                Self::Dict(Rc::new(Dict { entries: dict.entries.clone(), depth: dict.depth, read }))
            }
            other => other,
        }
    }

    pub(super) fn method(self, name: &Arc<str>) -> Outcome<Self> {
        check_depth(self.depth() + 1)?;
        Ok(Self::Method(Rc::new((self, Arc::clone(name)))))
    }

    /// Nesting depth. Contents of a namespace or a macro do not count: both are emptied in the end.
    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Dict(dict) => dict.depth,
            Self::Loop(state) => state.depth(),
            Self::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(list) => list.sequence == Sequence::Generator || !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            _ => true,
        }
    }

    /// The name of its type in Python.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(list) => match list.sequence {
                Sequence::List => "list",
                Sequence::Tuple | Sequence::Group => "tuple",
                Sequence::Range => "range",
                Sequence::Keys => "dict_keys",
                Sequence::Values => "dict_values",
                Sequence::Items => "dict_items",
                Sequence::Generator => "generator",
            },
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Function(Function::Unsupported(name)) => name,
            Self::Function(_) | Self::Method(_) => "function",
        }
    }

    /// A text that is safe if this one is.
    pub(super) fn same_kind(&self, text: &str) -> Self {
        if matches!(self, Self::Markup(_)) { Self::Markup(text.into()) } else { Self::text(text) }
    }

    /// A text, whether or not it is safe.
    pub(super) fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// A number as a whole one, `True` and `False` included.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(truth) => Some(i128::from(*truth)),
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            other => other.as_int().map(|number| number as f64),
        }
    }

    fn is_key(&self) -> bool {
        match self {
            Self::List(list) => list.is_key,
            Self::Dict(_) => false,
            _ => true,
        }
    }

    /// Fails as Python does where a value that may change is a key.
    pub(super) fn hashable(&self) -> Outcome<()> {
        match self {
            _ if self.is_key() => Ok(()),
            Self::Dict(_) => Err(Failure::new("a mapping cannot be a key")),
            Self::List(list) if list.is_tuple() => Err(Failure::new("a tuple of what cannot be keys cannot be one")),
            other => Err(Failure::new(format!("a {} cannot be a key", other.type_name()))),
        }
    }

    /// Fails as Python does where something undefined is used.
    pub(super) fn defined(&self) -> Outcome<()> {
        match self {
            Self::Undefined(name) => Err(Failure::new(format!("`{name}` is undefined"))),
            _ => Ok(()),
        }
    }

    pub(super) fn equals(&self, other: &Self, budget: &Budget) -> Outcome<bool> {
        budget.spend(8)?;
        if let (Some(left), Some(right)) = (self.as_int(), other.as_int()) {
            return Ok(left == right);
        }
        if let (Some(left), Some(right)) = (self.as_float(), other.as_float()) {
            return Ok(left == right);
        }
        if let (Some(left), Some(right)) = (self.as_text(), other.as_text()) {
            budget.spend(left.len().min(right.len()) / 8)?;
            return Ok(left == right);
        }
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::List(left), Self::List(right)) => return Ok(Rc::ptr_eq(left, right) || left.equals(right, budget)?),
            (Self::Dict(left), Self::Dict(right)) => return left.equals(right, budget),
            (Self::Namespace(left), Self::Namespace(right)) => Rc::ptr_eq(left, right),
            (Self::Macro(left), Self::Macro(right)) => Rc::ptr_eq(left, right),
            (Self::Loop(left), Self::Loop(right)) => Rc::ptr_eq(left, right),
            (Self::Function(left), Self::Function(right)) => left == right,
            _ => false,
        })
    }

    /// Which comes first, as Python's `<` has it.
    pub(super) fn order(&self, other: &Self, budget: &Budget) -> Outcome<Option<Ordering>> {
        budget.spend(8)?;
        self.defined()?;
        other.defined()?;
        if let (Some(left), Some(right)) = (self.as_int(), other.as_int()) {
            return Ok(Some(left.cmp(&right)));
        }
        if let (Some(left), Some(right)) = (self.as_float(), other.as_float()) {
            return Ok(left.partial_cmp(&right));
        }
        if let (Some(left), Some(right)) = (self.as_text(), other.as_text()) {
            budget.spend(left.len().min(right.len()) / 8)?;
            return Ok(Some(left.cmp(right)));
        }
        match (self, other) {
            (Self::List(left), Self::List(right))
                if left.is_tuple() && right.is_tuple()
                    || left.sequence == Sequence::List && right.sequence == Sequence::List =>
            {
                for (left, right) in left.items.iter().zip(&right.items) {
                    if !left.equals(right, budget)? {
                        return left.order(right, budget);
                    }
                }
                Ok(Some(left.items.len().cmp(&right.items.len())))
            }
            _ => Err(Failure::new(format!("{} and {} cannot be put in order", self.type_name(), other.type_name()))),
        }
    }

    /// Items in the order of the keys before them, as Python sorts: stably.
    pub(super) fn sorted(items: Vec<(Value, Value)>, reverse: bool, budget: &Budget) -> Outcome<Vec<Value>> {
        let comes_after = |left: &(Value, Value), right: &(Value, Value)| {
            let order = left.0.order(&right.0, budget)?.unwrap_or(Ordering::Equal);
            Ok(if reverse { order.is_lt() } else { order.is_gt() })
        };
        // The standard library's sort may refuse an order that is none, as floats have with NaN; merging does not.
        let sorted = merge_sort(items, &comes_after, budget)?;
        Ok(sorted.into_iter().map(|(_, item)| item).collect())
    }
}

/// Sorts by merging, which is stable and content with any answer of `comes_after`.
fn merge_sort<T: Clone>(
    mut items: Vec<T>,
    comes_after: &impl Fn(&T, &T) -> Outcome<bool>,
    budget: &Budget,
) -> Outcome<Vec<T>> {
    let mut width = 1;
    while width < items.len() {
        budget.spend(items.len().saturating_mul(8))?;
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(2 * width) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
            while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
                let takes_second = comes_after(first, second)?;
                merged.extend(if takes_second { right.next() } else { left.next() }.cloned());
            }
            merged.extend(left.chain(right).cloned());
        }
        items = merged;
        width *= 2;
    }
    Ok(items)
}

fn check_depth(depth: usize) -> Outcome<()> {
    if depth > DEEPEST_VALUE {
        return Err(Failure::new(format!("lists and mappings are nested more than {DEEPEST_VALUE} levels deep")));
    }
    Ok(())
}

impl List {
    pub(super) fn new(items: Vec<Value>, sequence: Sequence) -> Outcome<Rc<Self>> {
        let depth = items.iter().map(Value::depth).max().unwrap_or(0) + 1;
        check_depth(depth)?;
        let is_key = match sequence {
            Sequence::List | Sequence::Keys | Sequence::Items => false,
            Sequence::Tuple | Sequence::Group => items.iter().all(Value::is_key),
            Sequence::Range | Sequence::Values | Sequence::Generator => true,
        };
        Ok(Rc::new(Self { items, sequence, depth, is_key, taken: Cell::new(Some(0)) }))
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn is_tuple(&self) -> bool {
        matches!(self.sequence, Sequence::Tuple | Sequence::Group)
    }

    /// The items of a generator that are taken.
    pub(super) fn taken(&self) -> Outcome<usize> {
        let again =
            || Failure::new("a generator is read again after a filter took it; put the filter `list` behind it");
        self.taken.get().ok_or_else(again)
    }

    pub(super) fn take_to(&self, index: usize) {
        self.taken.set(Some(index));
    }

    /// Takes all items of a generator for one that Jinja would make of it item by item.
    pub(super) fn lend(&self) {
        self.taken.set(None);
    }

    /// The equality of different lists.
    fn equals(&self, other: &Self, budget: &Budget) -> Outcome<bool> {
        let alike = self.sequence == other.sequence || self.is_tuple() && other.is_tuple();
        let by_items = !matches!(self.sequence, Sequence::Generator | Sequence::Values);
        if !alike || !by_items || self.items.len() != other.items.len() {
            return Ok(false);
        }
        for (left, right) in self.items.iter().zip(&other.items) {
            if !left.equals(right, budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Dict {
    pub(super) fn find(&self, key: &Value, budget: &Budget) -> Outcome<Option<&Value>> {
        for (index, (known, value)) in self.entries.iter().enumerate() {
            if known.equals(key, budget)? {
                self.mark(index);
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn mark(&self, index: usize) {
        if let Some(read) = &self.read
            && let Some(read) = read.borrow_mut().get_mut(index)
        {
            *read = true;
        }
    }

    /// All entries, which are read by that.
    pub(super) fn all(&self) -> &[(Value, Value)] {
        if let Some(read) = &self.read {
            read.borrow_mut().fill(true);
        }
        &self.entries
    }

    /// The keys of a watched mapping that nobody has read.
    pub(super) fn unread(&self) -> Vec<&Value> {
        let Some(read) = &self.read else { return Vec::new() };
        let read = read.borrow();
        self.entries.iter().zip(read.iter()).filter(|(_, read)| !**read).map(|((key, _), _)| key).collect()
    }

    fn equals(&self, other: &Self, budget: &Budget) -> Outcome<bool> {
        if self.entries.len() != other.entries.len() {
            return Ok(false);
        }
        for (key, value) in self.all() {
            match other.find(key, budget)? {
                Some(found) if value.equals(found, budget)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
