//! Evaluates expressions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::ast::{Arguments, Expr, Kind};
use super::budget::{Budget, Text};
use super::call::Call;
use super::interpreter::Interpreter;
use super::pystr::to_str;
use super::sequences::{self, iterate};
use super::value::{Function, Loop, Namespace, Scope, Sequence, Value};
use super::{Failure, Outcome, checks, filters, methods, operators};

/// The longest range, as in Jinja's sandbox.
const LONGEST_RANGE: i128 = 100_000;

/// The function of a name.
pub(super) fn function(name: &str) -> Option<Function> {
    Some(match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        _ => return None,
    })
}

impl Interpreter {
    pub(super) fn eval(&self, expr: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        self.deeper(|| self.kind(&expr.kind, scope))
    }

    fn kind(&self, kind: &Kind, scope: &Rc<Scope>) -> Outcome<Value> {
        let budget = &self.budget;
        Ok(match kind {
            Kind::None => Value::None,
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Int(number) => Value::Int(*number),
            Kind::Float(number) => Value::Float(*number),
            Kind::Text(text) => Value::Text(Arc::clone(text)),
            Kind::Name(name) => self.variable(name, scope)?,
            Kind::List(items) => Value::list(self.all(items, scope)?, Sequence::List)?,
            Kind::Tuple(items) => Value::list(self.all(items, scope)?, Sequence::Tuple)?,
            Kind::Dict(pairs) => {
                let mut entries = Vec::new();
                for (key, value) in pairs {
                    put(&mut entries, self.eval(key, scope)?, self.eval(value, scope)?, budget)?;
                }
                Value::dict(entries)?
            }
            Kind::Attribute(inner, name) => sequences::attribute(&self.eval(inner, scope)?, name, budget)?,
            Kind::Item(inner, key) => sequences::item(&self.eval(inner, scope)?, &self.eval(key, scope)?, budget)?,
            Kind::Slice(inner, bounds) => {
                let value = self.eval(inner, scope)?;
                let [start, stop, step] = bounds.each_ref().map(|bound| match bound {
                    Some(bound) => self.eval(bound, scope),
                    None => Ok(Value::None),
                });
                sequences::slice(&value, [start?, stop?, step?], budget)?
            }
            Kind::Call(..) => self.call(kind, None, scope)?,
            Kind::Filter(inner, call) => {
                let value = self.eval(inner, scope)?;
                filters::filter(&call.name, &value, self.arguments(&call.arguments, scope)?, budget, 0)?
            }
            Kind::Test(inner, name, arguments) => {
                let value = self.eval(inner, scope)?;
                Value::Bool(checks::test(name, &value, self.arguments(arguments, scope)?, budget)?)
            }
            Kind::Not(inner) => Value::Bool(!self.eval(inner, scope)?.truth()),
            Kind::Negative(inner) => operators::negative(&self.eval(inner, scope)?)?,
            Kind::Positive(inner) => operators::positive(&self.eval(inner, scope)?)?,
            Kind::Binary(operator, left, right) => {
                operators::binary(*operator, &self.eval(left, scope)?, &self.eval(right, scope)?, budget)?
            }
            Kind::Concat(parts) => operators::concat(&self.all(parts, scope)?, budget)?,
            Kind::Compare(left, rest) => {
                let mut left = self.eval(left, scope)?;
                for (comparison, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !operators::compare(*comparison, &left, &right, budget)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Kind::And(left, right) => {
                let left = self.eval(left, scope)?;
                if left.truth() { self.eval(right, scope)? } else { left }
            }
            Kind::Or(left, right) => {
                let left = self.eval(left, scope)?;
                if left.truth() { left } else { self.eval(right, scope)? }
            }
            Kind::If { test, then, otherwise } => {
                if self.eval(test, scope)?.truth() {
                    self.eval(then, scope)?
                } else {
                    match otherwise {
                        Some(otherwise) => self.eval(otherwise, scope)?,
                        None => Value::Undefined("else".into()),
                    }
                }
            }
        })
    }

    fn all(&self, exprs: &[Expr], scope: &Rc<Scope>) -> Outcome<Vec<Value>> {
        self.budget.spend_entries(exprs.len())?;
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    /// The values of arguments.
    pub(super) fn arguments(&self, arguments: &Arguments, scope: &Rc<Scope>) -> Outcome<Call> {
        let mut call = Call::default();
        call.positional.extend(self.all(&arguments.positional, scope)?.into_iter().map(Some));
        for (name, expr) in &arguments.keywords {
            self.budget.spend_entries(1)?;
            call.keywords.push((Arc::clone(name), Some(self.eval(expr, scope)?)));
        }
        if let Some(list) = &arguments.list {
            call.positional.extend(iterate(&self.eval(list, scope)?, &self.budget)?.into_iter().map(Some));
        }
        if let Some(mapping) = &arguments.mapping {
            let Value::Dict(dict) = self.eval(mapping, scope)? else {
                return Err(Failure::new("what stands behind `**` is not a mapping"));
            };
            self.budget.spend_entries(dict.entries.len())?;
            for (key, value) in dict.all() {
                let Value::Text(name) = key else { return Err(Failure::new("an argument's name is not a text")) };
                call.keywords.push((Arc::clone(name), Some(value.clone())));
            }
        }
        Ok(call)
    }

    /// A call with what stands in its block, if it has one.
    pub(super) fn call_with(&self, expr: &Expr, caller: Option<Value>, scope: &Rc<Scope>) -> Outcome<Value> {
        self.deeper(|| self.call(&expr.kind, caller, scope))
    }

    fn call(&self, kind: &Kind, caller: Option<Value>, scope: &Rc<Scope>) -> Outcome<Value> {
        let Kind::Call(callee, arguments) = kind else { return Err(Failure::new("a call is not a call")) };
        let function = match &callee.kind {
            Kind::Attribute(inner, name) => {
                let value = self.eval(inner, scope)?;
                if methods::is_mutator(&value, name) {
                    let kind = value.type_name();
                    return Err(Failure::new(format!("`{name}` would change a {kind}, which chat templates may not")));
                }
                sequences::attribute(&value, name, &self.budget)?
            }
            _ => self.eval(callee, scope)?,
        };
        let mut call = self.arguments(arguments, scope)?;
        if let Some(caller) = caller {
            call.keywords.push(("caller".into(), Some(caller)));
        }
        self.deeper(|| self.call_value(&function, call))
    }

    fn call_value(&self, function: &Value, mut call: Call) -> Outcome<Value> {
        match function {
            Value::Function(Function::Range) => range(call, &self.budget),
            Value::Function(Function::Dict) => Value::dict(pairs(call, &self.budget)?),
            Value::Function(Function::Namespace) => {
                let namespace = Rc::new(Namespace::default());
                self.hold_namespace(&namespace)?;
                for (key, value) in pairs(call, &self.budget)? {
                    self.set_field(&namespace, &to_str(&key, &self.budget)?, value)?;
                }
                Ok(Value::Namespace(namespace))
            }
            Value::Function(Function::RaiseException) => {
                let reason = to_str(&call.need(0, "message")?, &self.budget)?;
                Err(Failure::raised(reason.to_string()))
            }
            Value::Function(Function::StrftimeNow) => {
                let format = call.need_text(0, "format")?;
                call.finish("strftime_now")?;
                self.budget.spend(format.len().saturating_mul(8))?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
                Ok(Value::Text(crate::text::strftime(&format, now).map_err(Failure::new)?.into()))
            }
            Value::Macro(known) => self.call_macro(known, call),
            Value::Method(method) => match &method.0 {
                Value::Loop(state) => self.call_loop(state, &method.1, call),
                value => methods::call(value, &method.1, call, &self.budget),
            },
            Value::Loop(state) => {
                let Some((statement, scope)) = &state.again else {
                    return Err(Failure::new("a loop that is not `recursive` is called"));
                };
                let items = call.need(0, "iterable")?;
                let mut out = Text::new(&self.budget);
                self.walk_over(statement, &items, state.level + 1, scope, &mut out)?;
                Ok(Value::Text(out.finish().into()))
            }
            Value::Undefined(name) => Err(Failure::new(format!("`{name}` is undefined and cannot be called"))),
            other => Err(Failure::new(format!("{} cannot be called", other.type_name()))),
        }
    }

    /// `loop.cycle` and `loop.changed`.
    fn call_loop(&self, state: &Rc<Loop>, name: &str, mut call: Call) -> Outcome<Value> {
        let values = call.rest();
        call.finish(name)?;
        if name == "cycle" {
            let index = state.index.get().checked_rem(values.len());
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
}

/// Puts an entry into a mapping, in the place of one with an equal key.
fn put(entries: &mut Vec<(Value, Value)>, key: Value, value: Value, budget: &Budget) -> Outcome<()> {
    key.hashable()?;
    for (known, held) in entries.iter_mut() {
        if known.equals(&key, budget)? {
            *held = value;
            return Ok(());
        }
    }
    budget.spend_entries(2)?;
    entries.push((key, value));
    Ok(())
}

/// The entries of `dict(..)`: of a mapping or a list of pairs, and of arguments with names.
fn pairs(mut call: Call, budget: &Budget) -> Outcome<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    match call.positional.first_mut().and_then(Option::take) {
        None => {}
        Some(Value::Dict(dict)) => {
            budget.spend_entries(dict.entries.len().saturating_mul(2))?;
            entries = dict.all().to_vec();
        }
        Some(list) => {
            for pair in iterate(&list, budget)? {
                match &iterate(&pair, budget)?[..] {
                    [key, value] => put(&mut entries, key.clone(), value.clone(), budget)?,
                    _ => return Err(Failure::new("a mapping is made of what are not pairs")),
                }
            }
        }
    }
    for (name, value) in call.named() {
        put(&mut entries, Value::Text(name), value, budget)?;
    }
    call.finish("dict")?;
    Ok(entries)
}

fn range(mut call: Call, budget: &Budget) -> Outcome<Value> {
    let number = |value: Option<Value>| match value {
        None => Ok(None),
        Some(value) => match value.as_int() {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::new(format!("`range` does not take {}", value.type_name()))),
        },
    };
    let (first, second, step) = (
        number(call.take(0, ""))?.ok_or_else(|| Failure::new("`range` needs a number"))?,
        number(call.take(1, ""))?,
        number(call.take(2, ""))?.unwrap_or(1),
    );
    call.finish("range")?;
    let (start, stop) = second.map_or((0, first), |second| (first, second));
    if step == 0 {
        return Err(Failure::new("a range has a step of 0"));
    }
    let distance = if step > 0 { stop.checked_sub(start) } else { start.checked_sub(stop) };
    let step_size = step.checked_abs().unwrap_or(i128::MAX);
    let count = distance.map(|distance| if distance <= 0 { 0 } else { (distance - 1) / step_size + 1 });
    let count = count.filter(|count| *count <= LONGEST_RANGE);
    let count = count.ok_or_else(|| Failure::new(format!("a range has more than {LONGEST_RANGE} numbers")))?;
    budget.spend_entries(usize::try_from(count).unwrap_or(usize::MAX))?;
    let numbers = (0..count).map(|index| Value::Int(start.saturating_add(index.saturating_mul(step))));
    Value::list(numbers.collect(), Sequence::Range)
}
