//! Jinja as chat templates use it: what Python's Jinja and transformers make of a template, made by an interpreter
//! that a hostile template can neither crash nor exhaust. What Jinja has beyond that is refused by name.
//!
//! A template is a program from a model's directory, and neither an overflow of the stack nor memory that cannot be had
//! is something that a program around this library could catch. Four bounds leave no way to either:
//!
//! - the tree that a template is read into has a bounded depth ([`parser`]), and so have lists and mappings ([`value`]);
//! - the interpreter counts how deep it is ([`interpreter`]), and has a stack of its own that is large enough;
//! - steps, values and bytes are paid for *before* they are made or read ([`budget`]);
//! - values hold what they were made of. Only a namespace's fields, a scope's variables and the last arguments of
//!   `loop.changed` can come to hold what holds them; the interpreter knows those that may be part of a chain of any
//!   length or of a circle, and empties them one by one in the end.

mod ast;
mod braces;
mod budget;
mod call;
mod checks;
mod collections;
mod expressions;
mod filters;
mod format;
mod interpreter;
mod json;
mod letters;
mod lexer;
mod loops;
mod markup;
mod methods;
mod numbers;
mod operators;
mod parser;
mod percent;
mod pystr;
mod sequences;
mod statements;
#[cfg(test)]
mod tests;
mod unicode;
mod value;

use std::thread;

use serde_json::Value as Json;

use self::interpreter::Interpreter;
use self::parser::Parser;

/// The stack to read and to run a template on. Of the levels that are allowed, the deepest take less than a fifth of it
/// in a debug build, and what is not used is never committed.
const STACK: usize = 128 << 20;

type Outcome<T> = Result<T, Failure>;

/// Why a template failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The middle of a sentence, or what the template itself said.
    pub(super) reason: String,
    /// True if the template itself raised it.
    pub(super) raised: bool,
    line: Option<usize>,
}

impl Failure {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), raised: false, line: None }
    }

    fn raised(reason: String) -> Self {
        Self { reason, raised: true, line: None }
    }

    /// The same with its line, if it has none yet.
    fn at(mut self, line: usize) -> Self {
        self.line = self.line.or(Some(line));
        self
    }
}

/// Why a template could not be read or run.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system starts no thread with a stack of so many MiB.
    NoThread(usize, std::io::Error),
    /// The template is at fault, or does not accept what it was given.
    Failed(Failure),
}

/// A template that was read.
#[derive(Debug)]
pub(super) struct Template {
    body: ast::Body,
}

/// Inputs of a template.
pub(super) struct Inputs<'a> {
    /// The messages, of whose fields it is noted which were read.
    pub(super) messages: &'a [Json],
    /// Other variables.
    pub(super) variables: Vec<(&'a str, Json)>,
}

/// Output of a template, and the inputs that it did not read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) unread_variables: Vec<String>,
    /// Fields of messages, by the message's index.
    pub(super) unread_fields: Vec<(usize, String)>,
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(source: &str) -> Result<Self, Trouble> {
        on_own_stack(|| {
            let body = lexer::tokens(source).and_then(|tokens| Parser::new(tokens).template());
            body.map(|body| Self { body }).map_err(Failure::new)
        })
    }

    /// Runs it.
    pub(super) fn render(&self, inputs: &Inputs<'_>) -> Result<Rendered, Trouble> {
        on_own_stack(|| {
            let result = Interpreter::new(inputs).and_then(|interpreter| interpreter.run(&self.body));
            result.map_err(|mut failure| {
                if let (Some(line), false) = (failure.line, failure.raised) {
                    failure.reason = format!("{} (line {line})", failure.reason);
                }
                failure
            })
        })
    }
}

fn on_own_stack<T: Send>(run: impl FnOnce() -> Outcome<T> + Send) -> Result<T, Trouble> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
        let thread = thread.map_err(|error| Trouble::NoThread(STACK >> 20, error))?;
        let result = thread.join().unwrap_or_else(|_| Err(Failure::new("its interpreter failed; please report this")));
        result.map_err(Trouble::Failed)
    })
}
