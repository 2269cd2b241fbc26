//! Runs statements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Body, FilterCall, Macro, Statement, StatementKind, Target};
use super::budget::{Budget, STEP, Text};
use super::call::Call;
use super::json::from_json;
use super::loops::Loop;
use super::pystr::write_str;
use super::sequences::iterate;
use super::value::{MacroValue, Namespace, Scope, Sequence, Value};
use super::{Failure, Inputs, Outcome, Rendered, filters};

/// Greatest nesting of expressions, statements and calls while they run. Python allows a thousand calls.
const DEEPEST_RUN: usize = 1500;

/// Control flow after a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// A possible link of a chain or cycle of values: emptied in the end, link by link, so that no drop recurses.
enum Held {
    Namespace(Rc<Namespace>),
    Scope(Rc<Scope>),
    Loop(Rc<Loop>),
}

pub(super) struct Interpreter {
    pub(super) budget: Budget,
    /// Variables given to the template, and whether each was read.
    variables: Vec<(Arc<str>, Value, Cell<bool>)>,
    depth: Cell<usize>,
    held: RefCell<Vec<Held>>,
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        for held in self.held.borrow().iter() {
            match held {
                Held::Namespace(namespace) => drop(namespace.fields.take()),
                Held::Scope(scope) => drop(scope.variables.take()),
                Held::Loop(state) => state.empty(),
            }
        }
    }
}

impl Interpreter {
    pub(super) fn new(inputs: &Inputs<'_>) -> Outcome<Self> {
        let given = inputs.variables.iter().map(|(_, value)| size(value)).sum::<usize>();
        let budget = Budget::new(given + inputs.messages.iter().map(size).sum::<usize>());
        let messages: Outcome<Vec<Value>> =
            inputs.messages.iter().map(|message| Ok(from_json(message, &budget)?.watched())).collect();
        let mut variables = vec![("messages".into(), Value::list(messages?, Sequence::List)?, Cell::new(false))];
        for (name, value) in &inputs.variables {
            variables.push(((*name).into(), from_json(value, &budget)?, Cell::new(false)));
        }
        Ok(Self { budget, variables, depth: Cell::new(0), held: RefCell::default() })
    }

    pub(super) fn run(&self, body: &Body) -> Outcome<Rendered> {
        let scope = Rc::new(Scope::default());
        let mut out = Text::new(&self.budget);
        self.body(body, &scope, &mut out)?;
        let mut rendered = Rendered { text: out.finish(), ..Rendered::default() };
        for (name, value, read) in &self.variables {
            if !read.get() {
                rendered.unread_variables.push(name.to_string());
            }
            let (Value::List(messages), "messages") = (value, &**name) else { continue };
            for (index, message) in messages.items.iter().enumerate() {
                let Value::Dict(message) = message else { continue };
                let unread = message.unread().into_iter().filter_map(|key| match key {
                    Value::Text(key) => Some((index, key.to_string())),
                    _ => None,
                });
                rendered.unread_fields.extend(unread);
            }
        }
        Ok(rendered)
    }

    /// Runs something one level deeper.
    pub(super) fn deeper<T>(&self, run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.budget.spend(STEP)?;
        let depth = self.depth.get();
        if depth == DEEPEST_RUN {
            return Err(Failure::new("its calls and expressions are nested too deeply"));
        }
        self.depth.set(depth + 1);
        let result = run();
        self.depth.set(depth);
        result
    }

    /// The value of a name.
    pub(super) fn variable(&self, name: &Arc<str>, scope: &Rc<Scope>) -> Outcome<Value> {
        let mut next = Some(scope);
        while let Some(scope) = next {
            let variables = scope.variables.borrow();
            self.budget.spend(1)?;
            self.budget.spend_search(name, variables.len())?;
            if let Some((_, value)) = variables.iter().find(|(known, _)| known == name) {
                return Ok(value.clone());
            }
            next = scope.parent.as_ref();
        }
        self.budget.spend_search(name, self.variables.len())?;
        if let Some((_, value, read)) = self.variables.iter().find(|(known, ..)| known == name) {
            read.set(true);
            return Ok(value.clone());
        }
        Ok(super::expressions::function(name).map_or_else(|| Value::Undefined(Arc::clone(name)), Value::Function))
    }

    fn set(&self, name: &Arc<str>, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        self.budget.spend_entries(1)?;
        self.budget.spend_search(name, scope.variables.borrow().len())?;
        scope.set(name, value);
        Ok(())
    }

    pub(super) fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Name(name) => self.set(name, value, scope),
            Target::Tuple(targets) => {
                let values = iterate(&value, &self.budget)?;
                if values.len() != targets.len() {
                    let (wanted, found) = (targets.len(), values.len());
                    return Err(Failure::new(format!("{found} values are given to {wanted} names")));
                }
                targets.iter().zip(values).try_for_each(|(target, value)| self.assign(target, value, scope))
            }
            Target::Attribute(name, field) => match self.variable(name, scope)? {
                Value::Namespace(namespace) => self.set_field(&namespace, field, value),
                _ => Err(Failure::new(format!("`{name}` is not a namespace, so nothing in it can be set"))),
            },
        }
    }

    pub(super) fn set_field(&self, namespace: &Namespace, field: &Arc<str>, value: Value) -> Outcome<()> {
        if field.starts_with('_') {
            return Err(Failure::new(format!("a namespace holds nothing whose name begins with `_`, as `{field}`")));
        }
        let mut fields = namespace.fields.borrow_mut();
        self.budget.spend_entries(1)?;
        self.budget.spend_search(field, fields.len())?;
        let old = match fields.iter_mut().find(|(known, _)| known == field) {
            Some((_, held)) => Some(std::mem::replace(held, value)),
            None => {
                fields.push((Arc::clone(field), value));
                None
            }
        };
        // What was there may be in the namespace's way while it is dropped.
        drop(fields);
        drop(old);
        Ok(())
    }

    pub(super) fn hold_namespace(&self, namespace: &Rc<Namespace>) -> Outcome<()> {
        self.budget.spend_entries(2)?;
        self.held.borrow_mut().push(Held::Namespace(Rc::clone(namespace)));
        Ok(())
    }

    pub(super) fn hold_loop(&self, state: &Rc<Loop>) -> Outcome<()> {
        self.budget.spend_entries(2)?;
        self.held.borrow_mut().push(Held::Loop(Rc::clone(state)));
        Ok(())
    }

    pub(super) fn hold_scope(&self, scope: &Rc<Scope>) -> Outcome<()> {
        self.budget.spend_entries(2)?;
        if !scope.is_held.replace(true) {
            self.held.borrow_mut().push(Held::Scope(Rc::clone(scope)));
        }
        Ok(())
    }

    /// A macro, which holds the scope that it was made in.
    fn macro_value(&self, definition: &Arc<Macro>, scope: &Rc<Scope>) -> Outcome<Value> {
        self.budget.spend_entries(2)?;
        self.hold_scope(scope)?;
        let (definition, scope) = (Arc::clone(definition), Rc::clone(scope));
        Ok(Value::Macro(Rc::new(MacroValue { definition, scope })))
    }

    pub(super) fn body(&self, body: &[Statement], scope: &Rc<Scope>, out: &mut Text<'_>) -> Outcome<Flow> {
        for statement in body {
            let flow = self.deeper(|| self.statement(&statement.kind, scope, out));
            let flow = flow.map_err(|failure| failure.at(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&self, statement: &StatementKind, scope: &Rc<Scope>, out: &mut Text<'_>) -> Outcome<Flow> {
        match statement {
            StatementKind::Text(text) => out.push(text)?,
            StatementKind::Print(expr) => write_str(&self.eval(expr, scope)?, out)?,
            StatementKind::For(statement) => {
                let items = self.eval(&statement.items, scope)?;
                return self.run_loop(statement, &items, 0, scope, out);
            }
            StatementKind::If(arms, otherwise) => {
                for (test, body) in arms {
                    if self.eval(test, scope)?.truth() {
                        return self.body(body, scope, out);
                    }
                }
                return self.body(otherwise, scope, out);
            }
            StatementKind::Set(target, expr) => self.assign(target, self.eval(expr, scope)?, scope)?,
            StatementKind::SetBlock(target, filters, body) => match self.filtered_body(filters, body, scope)? {
                Ok(value) => self.assign(target, value, scope)?,
                Err(flow) => return Ok(flow),
            },
            StatementKind::Macro(definition) => {
                let value = self.macro_value(definition, scope)?;
                self.set(&definition.name, value, scope)?;
            }
            StatementKind::Call(expr, caller) => {
                let caller = self.macro_value(caller, scope)?;
                write_str(&self.call_with(expr, Some(caller), scope)?, out)?;
            }
            StatementKind::Filter(filters, body) => match self.filtered_body(filters, body, scope)? {
                Ok(value) => write_str(&value, out)?,
                Err(flow) => return Ok(flow),
            },
            StatementKind::With(values, body) => {
                let inner = Scope::inside(scope);
                for (target, expr) in values {
                    self.assign(target, self.eval(expr, scope)?, &inner)?;
                }
                return self.body(body, &inner, out);
            }
            StatementKind::Scope(body) => return self.body(body, &Scope::inside(scope), out),
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// The text of a body through filters, or how the body ended early, which leaves no text.
    fn filtered_body(&self, calls: &[FilterCall], body: &Body, scope: &Rc<Scope>) -> Outcome<Result<Value, Flow>> {
        let (inner, mut text) = (Scope::inside(scope), Text::new(&self.budget));
        let flow = self.body(body, &inner, &mut text)?;
        if flow != Flow::Next {
            return Ok(Err(flow));
        }
        let text = Value::Text(text.finish().into());
        let filtered = calls.iter().try_fold(text, |value, call| {
            let arguments = self.arguments(&call.arguments, &inner)?;
            filters::filter(&call.name, &value, arguments, &self.budget, 0)
        });
        filtered.map(Ok)
    }

    pub(super) fn call_macro(&self, known: &MacroValue, mut call: Call) -> Outcome<Value> {
        let MacroValue { definition, scope } = known;
        let scope = Scope::inside(scope);
        // Each parameter is looked for among the names, and they may all be as long.
        for name in &definition.parameters {
            self.budget.spend_search(name, call.count())?;
        }
        let required = definition.parameters.len() - definition.defaults.len();
        let mut missing = Vec::new();
        for (index, name) in definition.parameters.iter().enumerate() {
            match call.take(index, name) {
                Some(value) => self.set(name, value, &scope)?,
                None => missing.push((index, name)),
            }
        }
        for (index, name) in missing {
            let default = index.checked_sub(required).and_then(|index| definition.defaults.get(index));
            let value = match default {
                Some(default) => self.eval(default, &scope)?,
                None => Value::Undefined(Arc::clone(name)),
            };
            self.set(name, value, &scope)?;
        }
        let mentions = definition.mentions;
        if mentions.caller && !definition.parameters.iter().any(|name| &**name == "caller") {
            let caller = call.take_named("caller").unwrap_or_else(|| Value::Undefined("caller".into()));
            self.set(&"caller".into(), caller, &scope)?;
        }
        if mentions.kwargs {
            let named = call.named().into_iter().map(|(name, value)| (Value::Text(name), value)).collect();
            self.set(&"kwargs".into(), Value::dict(named)?, &scope)?;
        }
        if mentions.varargs {
            self.set(&"varargs".into(), Value::list(call.rest(), Sequence::Tuple)?, &scope)?;
        }
        call.finish(&definition.name)?;
        let mut out = Text::new(&self.budget);
        self.body(&definition.body, &scope, &mut out)?;
        Ok(Value::Text(out.finish().into()))
    }
}

/// About the bytes of a JSON value.
fn size(json: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    match json {
        Json::String(text) => text.len() + 2,
        Json::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Json::Object(fields) => fields.iter().map(|(key, value)| key.len() + size(value) + 4).sum::<usize>() + 2,
        _ => 4,
    }
}
