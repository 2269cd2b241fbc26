//! Evaluates expressions.

use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Arguments, Comparison, Expr, Kind};
use super::budget::Budget;
use super::call::Call;
use super::interpreter::Interpreter;
use super::pystr::to_str;
use super::sequences::{self, iterate};
use super::value::{Function, Namespace, Scope, Sequence, Value};
use super::{Failure, Outcome, checks, filters, methods, operators};
use crate::text::calendar::strftime_now;

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
        "joiner" => Function::Unsupported("joiner"),
        "cycler" => Function::Unsupported("cycler"),
        "lipsum" => Function::Unsupported("lipsum"),
        "self" => Function::Unsupported("self"),
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
            Kind::Dict(pairs) => self.mapping(pairs, scope)?,
            Kind::Attribute(inner, name) => self.attribute(&self.eval(inner, scope)?, name)?,
            Kind::Item(inner, key) => self.item(&self.eval(inner, scope)?, &self.eval(key, scope)?)?,
            Kind::Slice(inner, bounds) => self.slice(inner, bounds, scope)?,
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
            Kind::Compare(left, rest) => self.compare(left, rest, scope)?,
            Kind::And(left, right) => match self.eval(left, scope)? {
                left if left.truth() => self.eval(right, scope)?,
                left => left,
            },
            Kind::Or(left, right) => match self.eval(left, scope)? {
                left if left.truth() => left,
                _ => self.eval(right, scope)?,
            },
            Kind::If { test, then, otherwise } => match (self.eval(test, scope)?.truth(), otherwise) {
                (true, _) => self.eval(then, scope)?,
                (false, Some(otherwise)) => self.eval(otherwise, scope)?,
                (false, None) => Value::Undefined("else".into()),
            },
        })
    }

    fn mapping(&self, pairs: &[(Expr, Expr)], scope: &Rc<Scope>) -> Outcome<Value> {
        let mut entries = Vec::new();
        for (key, value) in pairs {
            put(&mut entries, self.eval(key, scope)?, self.eval(value, scope)?, &self.budget)?;
        }
        Value::dict(entries)
    }

    fn attribute(&self, value: &Value, name: &Arc<str>) -> Outcome<Value> {
        match value {
            Value::Loop(state) => self.loop_attribute(state, name),
            other => sequences::attribute(other, name, &self.budget),
        }
    }

    fn item(&self, value: &Value, key: &Value) -> Outcome<Value> {
        match (value, key.as_text()) {
            (Value::Loop(state), Some(name)) => self.loop_attribute(state, name),
            _ => sequences::item(value, key, &self.budget),
        }
    }

    fn slice(&self, inner: &Expr, bounds: &[Option<Box<Expr>>; 3], scope: &Rc<Scope>) -> Outcome<Value> {
        let value = self.eval(inner, scope)?;
        let [start, stop, step] = bounds.each_ref().map(|bound| match bound {
            Some(bound) => self.eval(bound, scope),
            None => Ok(Value::None),
        });
        sequences::slice(&value, [start?, stop?, step?], &self.budget)
    }

    /// Comparisons in a row, each of which has to hold.
    fn compare(&self, left: &Expr, rest: &[(Comparison, Expr)], scope: &Rc<Scope>) -> Outcome<Value> {
        let mut left = self.eval(left, scope)?;
        for (comparison, right) in rest {
            let right = self.eval(right, scope)?;
            if !operators::compare(*comparison, &left, &right, &self.budget)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
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
            self.add_keyword(&mut call, name, self.eval(expr, scope)?)?;
        }
        if let Some(list) = &arguments.list {
            call.positional.extend(iterate(&self.eval(list, scope)?, &self.budget)?.into_iter().map(Some));
        }
        if let Some(mapping) = &arguments.mapping {
            let Value::Dict(dict) = self.eval(mapping, scope)? else {
                return Err(Failure::new("what stands behind `**` is not a mapping"));
            };
            for (key, value) in dict.all() {
                // One that is marked as safe would have to stay so where the names are read.
                let Value::Text(name) = key else { return Err(Failure::new("an argument's name is not a text")) };
                self.add_keyword(&mut call, name, value.clone())?;
            }
        }
        Ok(call)
    }

    fn add_keyword(&self, call: &mut Call, name: &Arc<str>, value: Value) -> Outcome<()> {
        self.budget.spend_entries(1)?;
        self.budget.spend_search(name, call.keywords.len())?;
        if call.keywords.iter().any(|(known, _)| known == name) {
            return Err(Failure::new(format!("the argument `{name}` is given twice")));
        }
        call.keywords.push((Arc::clone(name), Some(value)));
        Ok(())
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
                self.attribute(&value, name)?
            }
            _ => self.eval(callee, scope)?,
        };
        let mut call = self.arguments(arguments, scope)?;
        if let Some(caller) = caller {
            self.add_keyword(&mut call, &"caller".into(), caller)?;
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
                Ok(Value::Text(strftime_now(&format).map_err(Failure::new)?.into()))
            }
            Value::Macro(known) => self.call_macro(known, call),
            Value::Method(method) => match &method.0 {
                Value::Loop(state) => self.loop_method(state, &method.1, call),
                value => methods::call(value, &method.1, call, &self.budget),
            },
            Value::Loop(state) => self.call_loop(state, call),
            Value::Function(Function::Unsupported(name)) => {
                Err(Failure::new(format!("`{name}` is not supported in chat templates")))
            }
            Value::Undefined(name) => Err(Failure::new(format!("`{name}` is undefined and cannot be called"))),
            other => Err(Failure::new(format!("{} cannot be called", other.type_name()))),
        }
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
            list.defined()?;
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
