//! Loops, which take their items one by one, and what `loop` says of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{For, Target};
use super::budget::Text;
use super::call::Call;
use super::interpreter::{Flow, Interpreter};
use super::sequences::walked;
use super::value::{List, Scope, Sequence, Value};
use super::{Failure, Outcome};

/// `loop`. As in Jinja it looks ahead no further than it is asked to: by one item for `last` and `nextitem`, and to the
/// end for the length where a condition or a generator hides it.
pub(super) struct Loop {
    items: Rc<List>,
    /// The index of the next item; generators have their own.
    next: Cell<usize>,
    /// The statement with the scope around it, for its condition and for recursion.
    around: Option<(Arc<For>, Rc<Scope>)>,
    /// True while the condition is being evaluated.
    is_asking: Cell<bool>,
    /// Items that were looked at ahead of their turn.
    ahead: RefCell<VecDeque<Value>>,
    current: RefCell<Option<Value>>,
    previous: RefCell<Option<Value>>,
    /// The number of items that were begun.
    index: Cell<usize>,
    length: Cell<Option<usize>>,
    /// The number of loops that it is called from, in a recursive loop.
    level: usize,
    /// The arguments of the last `changed`.
    last: RefCell<Option<Vec<Value>>>,
}

impl Loop {
    fn new(statement: &Arc<For>, items: Rc<List>, level: usize, scope: &Rc<Scope>) -> Self {
        let needs_scope = statement.recursive || statement.test.is_some();
        let is_known = statement.test.is_none() && items.sequence != Sequence::Generator;
        Self {
            length: Cell::new(is_known.then_some(items.items.len())),
            items,
            next: Cell::new(0),
            around: needs_scope.then(|| (Arc::clone(statement), Rc::clone(scope))),
            is_asking: Cell::new(false),
            ahead: RefCell::default(),
            current: RefCell::default(),
            previous: RefCell::default(),
            index: Cell::new(0),
            level,
            last: RefCell::default(),
        }
    }

    /// Nesting depth. Tuples that a condition lets pass have no more levels than their targets.
    pub(super) fn depth(&self) -> usize {
        let targets = self.around.as_ref().map_or(0, |(statement, _)| statement.depth);
        self.items.depth() + targets + 1
    }

    /// The number of items that were begun.
    pub(super) fn index(&self) -> usize {
        self.index.get()
    }

    /// The number of items, if that takes no looking ahead.
    pub(super) fn known_length(&self) -> Outcome<usize> {
        self.length.get().ok_or_else(|| Failure::new("the length of this loop is only known as `loop.length`"))
    }

    /// Lets go of the values that it may be held by.
    pub(super) fn empty(&self) {
        drop(self.last.take());
    }

    fn take(&self) -> Outcome<Option<Value>> {
        let is_generator = self.items.sequence == Sequence::Generator;
        let index = if is_generator { self.items.taken()? } else { self.next.get() };
        let item = self.items.items.get(index).cloned();
        let next = index + usize::from(item.is_some());
        if is_generator {
            self.items.take_to(next);
        } else {
            self.next.set(next);
        }
        Ok(item)
    }
}

impl Interpreter {
    /// Runs a loop over `items`.
    pub(super) fn run_loop(
        &self,
        statement: &Arc<For>,
        items: &Value,
        level: usize,
        scope: &Rc<Scope>,
        out: &mut Text<'_>,
    ) -> Outcome<Flow> {
        let state = Rc::new(Loop::new(statement, walked(items, &self.budget)?, level, scope));
        if state.around.is_some() {
            // The scope may come to hold the loop.
            self.hold_scope(scope)?;
        }
        let name: Arc<str> = "loop".into();
        let mut reached_an_end = false;
        while let Some(item) = self.begin_item(&state)? {
            self.budget.spend_entries(4)?;
            let inner = Scope::inside(scope);
            inner.set(&name, Value::Loop(Rc::clone(&state)));
            self.assign(&statement.target, item, &inner)?;
            match self.body(&statement.body, &inner, out)? {
                Flow::Next => reached_an_end = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        // Jinja runs `else` unless the end of the body was reached once. What leaves a loop there leaves the one around.
        if reached_an_end { Ok(Flow::Next) } else { self.body(&statement.otherwise, &Scope::inside(scope), out) }
    }

    fn begin_item(&self, state: &Loop) -> Outcome<Option<Value>> {
        let ahead = state.ahead.borrow_mut().pop_front();
        let item = if ahead.is_some() { ahead } else { self.next_item(state)? };
        if let Some(item) = &item {
            state.index.set(state.index.get() + 1);
            let previous = state.current.replace(Some(item.clone()));
            state.previous.replace(previous);
        }
        Ok(item)
    }

    /// The next item that passes the loop's condition.
    fn next_item(&self, state: &Loop) -> Outcome<Option<Value>> {
        let condition =
            state.around.as_ref().and_then(|(statement, scope)| Some((statement, statement.test.as_ref()?, scope)));
        let Some((statement, test, scope)) = condition else { return state.take() };
        if state.is_asking.replace(true) {
            return Err(Failure::new("the condition of a loop asks for the items of the same loop"));
        }
        while let Some(item) = state.take()? {
            let inner = Scope::inside(scope);
            self.assign(&statement.target, item, &inner)?;
            if self.eval(test, &inner)?.truth() {
                state.is_asking.set(false);
                return self.assigned(&statement.target, &inner).map(Some);
            }
        }
        state.is_asking.set(false);
        Ok(None)
    }

    /// The values of targets, as tuples.
    fn assigned(&self, target: &Target, scope: &Rc<Scope>) -> Outcome<Value> {
        match target {
            Target::Name(name) | Target::Attribute(name, _) => self.variable(name, scope),
            Target::Tuple(targets) => {
                self.budget.spend_entries(targets.len())?;
                let values: Outcome<Vec<Value>> = targets.iter().map(|target| self.assigned(target, scope)).collect();
                Value::list(values?, Sequence::Tuple)
            }
        }
    }

    /// Looks at one more item ahead of its turn, if there is one.
    fn look_ahead(&self, state: &Loop) -> Outcome<bool> {
        let Some(item) = self.next_item(state)? else { return Ok(false) };
        self.budget.spend_entries(1)?;
        state.ahead.borrow_mut().push_back(item);
        Ok(true)
    }

    fn item_ahead(&self, state: &Loop) -> Outcome<Option<Value>> {
        if state.ahead.borrow().is_empty() {
            self.look_ahead(state)?;
        }
        Ok(state.ahead.borrow().front().cloned())
    }

    fn length(&self, state: &Loop) -> Outcome<usize> {
        if state.length.get().is_none() {
            while self.look_ahead(state)? {}
            state.length.set(Some(state.index() + state.ahead.borrow().len()));
        }
        state.known_length()
    }

    /// `loop.name`.
    pub(super) fn loop_attribute(&self, state: &Rc<Loop>, name: &Arc<str>) -> Outcome<Value> {
        let number = |number: usize| Ok(Value::Int(number as i128));
        let item = |item: Option<Value>| Ok(item.unwrap_or_else(|| Value::Undefined(Arc::clone(name))));
        let index = state.index();
        match &**name {
            "index" => number(index),
            "index0" => number(index.saturating_sub(1)),
            "revindex" => number((self.length(state)? + 1).saturating_sub(index)),
            "revindex0" => number(self.length(state)?.saturating_sub(index)),
            "first" => Ok(Value::Bool(index == 1)),
            "last" => Ok(Value::Bool(self.item_ahead(state)?.is_none())),
            "length" => number(self.length(state)?),
            "depth" => number(state.level + 1),
            "depth0" => number(state.level),
            "previtem" => item(state.previous.borrow().clone()),
            "nextitem" => item(self.item_ahead(state)?),
            "cycle" | "changed" => Value::Loop(Rc::clone(state)).method(name),
            _ => Ok(Value::Undefined(Arc::clone(name))),
        }
    }

    /// `loop.cycle` and `loop.changed`.
    pub(super) fn loop_method(&self, state: &Rc<Loop>, name: &str, mut call: Call) -> Outcome<Value> {
        let values = call.rest();
        call.finish(name)?;
        if name == "cycle" {
            let index = state.index().saturating_sub(1).checked_rem(values.len());
            let value = index.and_then(|index| values.get(index).cloned());
            return value.ok_or_else(|| Failure::new("`loop.cycle` has nothing to go through"));
        }
        let last = state.last.replace(None);
        if last.is_none() {
            self.hold_loop(state)?;
        }
        let same = match &last {
            Some(last) if last.len() == values.len() => {
                let mut same = true;
                for (old, new) in last.iter().zip(&values) {
                    same &= old.equals(new, &self.budget)?;
                }
                same
            }
            _ => false,
        };
        *state.last.borrow_mut() = Some(values);
        Ok(Value::Bool(!same))
    }

    /// A recursive loop that is called: its statement runs over other items.
    pub(super) fn call_loop(&self, state: &Loop, mut call: Call) -> Outcome<Value> {
        let Some((statement, scope)) = state.around.as_ref().filter(|(statement, _)| statement.recursive) else {
            return Err(Failure::new("a loop that is not `recursive` is called"));
        };
        let items = call.need(0, "iterable")?;
        call.finish("loop")?;
        let mut out = Text::new(&self.budget);
        self.run_loop(statement, &items, state.level + 1, scope, &mut out)?;
        Ok(Value::Text(out.finish().into()))
    }
}
