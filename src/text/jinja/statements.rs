//! Statements from tokens, by Jinja's grammar.

use std::sync::Arc;

use super::ast::{Body, For, Kind, Macro, Mentions, Statement, StatementKind, Target};
use super::lexer::Token;
use super::parser::{Parsed, Parser};

impl Parser {
    /// A whole template.
    pub(super) fn template(&mut self) -> Parsed<Body> {
        let body = self.body(&[])?;
        match self.peek() {
            Token::End => Ok(body),
            _ => Err(self.unexpected("the end")),
        }
    }

    /// Statements up to a tag that begins with one of `ends`, which is not taken.
    fn body(&mut self, ends: &[&str]) -> Parsed<Body> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            let kind = match self.next() {
                Token::Data(text) => StatementKind::Text(text),
                Token::PrintBegin => {
                    let expr = self.tuple(true, false)?;
                    match self.next() {
                        Token::PrintEnd => StatementKind::Print(expr),
                        _ => return Err(format!("`}}}}` is missing (line {line})")),
                    }
                }
                Token::BlockBegin => {
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    let kind = self.nested(Self::statement)?;
                    self.end_of_block()?;
                    kind
                }
                _ if ends.is_empty() => {
                    self.step_back();
                    return Ok(body);
                }
                _ => return Err(format!("{:?} is missing (line {line})", ends.last().unwrap_or(&""))),
            };
            body.push(Statement { line, kind });
        }
    }

    fn end_of_block(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::BlockEnd => {
                self.next();
                Ok(())
            }
            _ => Err(self.unexpected("`%}`")),
        }
    }

    /// The body of a block up to the tag `end`, which is taken but for its `%}`.
    fn block(&mut self, end: &str) -> Parsed<Body> {
        self.skip_operator(":");
        self.end_of_block()?;
        let body = self.body(&[end])?;
        self.next();
        Ok(body)
    }

    /// A body up to one of `ends`, and which of them it was.
    fn block_to(&mut self, ends: &[&str]) -> Parsed<(Body, Arc<str>)> {
        self.skip_operator(":");
        self.end_of_block()?;
        let body = self.body(ends)?;
        Ok((body, self.expect_name()?))
    }

    fn statement(&mut self) -> Parsed<StatementKind> {
        let line = self.line();
        let name = self.expect_name()?;
        match &*name {
            "for" => self.for_loop(),
            "if" => self.condition(),
            "set" => self.set(),
            "macro" => {
                let name = self.expect_name()?;
                Ok(StatementKind::Macro(Arc::new(self.macro_with(name, "endmacro")?)))
            }
            "call" => self.call(),
            "filter" => {
                let calls = self.filter_calls(true)?;
                Ok(StatementKind::Filter(calls, self.block("endfilter")?))
            }
            "with" => self.with(),
            "generation" => self.generation(),
            "block" => self.named_block(line),
            "autoescape" => self.autoescape(line),
            "print" => self.print(),
            "break" | "continue" if self.loops == 0 => Err(format!("`{name}` is outside of a loop (line {line})")),
            "break" => Ok(StatementKind::Break),
            "continue" => Ok(StatementKind::Continue),
            "include" | "import" | "from" | "extends" | "do" => {
                Err(format!("`{name}` is not supported in chat templates (line {line})"))
            }
            _ => Err(format!("the tag `{name}` is unknown or out of place (line {line})")),
        }
    }

    fn for_loop(&mut self) -> Parsed<StatementKind> {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let items = self.tuple(false, false)?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let (body, end) = self.block_to(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = match &*end {
            // It is part of what a recursive loop is called as.
            "else" if recursive => self.outside_of_loops(|parser| parser.block("endfor"))?,
            "else" => self.block("endfor")?,
            _ => Body::new(),
        };
        let depth = target.depth();
        Ok(StatementKind::For(Arc::new(For { target, depth, items, test, recursive, body, otherwise })))
    }

    /// Reads what runs on its own, so that the loops around cannot be left from inside.
    fn outside_of_loops<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let around = std::mem::take(&mut self.loops);
        let result = parse(self);
        self.loops = around;
        result
    }

    fn generation(&mut self) -> Parsed<StatementKind> {
        Ok(StatementKind::Scope(self.outside_of_loops(|parser| parser.block("endgeneration"))?))
    }

    fn named_block(&mut self, line: usize) -> Parsed<StatementKind> {
        let name = self.expect_name()?;
        // Jinja's blocks see no variables of the loops and macros around them.
        if !self.skip_name("scoped") && !self.is_outermost() {
            return Err(format!("a `block` inside of another tag that is not `scoped` is not supported (line {line})"));
        }
        let body = self.outside_of_loops(|parser| parser.block("endblock"))?;
        self.skip_name(&name);
        Ok(StatementKind::Scope(body))
    }

    fn autoescape(&mut self, line: usize) -> Parsed<StatementKind> {
        match self.expression()?.kind {
            Kind::Bool(false) => Ok(StatementKind::Scope(self.block("endautoescape")?)),
            _ => Err(format!("`autoescape` other than `false` is not supported in chat templates (line {line})")),
        }
    }

    fn condition(&mut self) -> Parsed<StatementKind> {
        let mut arms = Vec::new();
        loop {
            let test = self.tuple(false, false)?;
            let (body, end) = self.block_to(&["elif", "else", "endif"])?;
            arms.push((test, body));
            match &*end {
                "elif" => {}
                "else" => return Ok(StatementKind::If(arms, self.block("endif")?)),
                _ => return Ok(StatementKind::If(arms, Body::new())),
            }
        }
    }

    fn set(&mut self) -> Parsed<StatementKind> {
        let target = self.target(true)?;
        if self.skip_operator("=") {
            return Ok(StatementKind::Set(target, self.tuple(true, false)?));
        }
        let filters = self.filter_calls(false)?;
        Ok(StatementKind::SetBlock(target, filters, self.block("endset")?))
    }

    /// Expressions that are printed one after the other.
    fn print(&mut self) -> Parsed<StatementKind> {
        let line = self.line();
        let mut body = Body::new();
        while !matches!(self.peek(), Token::BlockEnd) {
            if !body.is_empty() {
                self.expect_operator(",")?;
            }
            body.push(Statement { line, kind: StatementKind::Print(self.expression()?) });
        }
        Ok(StatementKind::Scope(body))
    }

    fn with(&mut self) -> Parsed<StatementKind> {
        let mut values = Vec::new();
        while !matches!(self.peek(), Token::BlockEnd) {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.single_target(false)?;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(StatementKind::With(values, self.block("endwith")?))
    }

    fn call(&mut self) -> Parsed<StatementKind> {
        // Its parameters come first, and then the call, so its body is read as a macro's that is made of both.
        let (parameters, defaults) = if self.is_operator("(") { self.parameters()? } else { Default::default() };
        let call = self.expression()?;
        if !matches!(call.kind, Kind::Call(..)) {
            return Err(self.unexpected("a call"));
        }
        let (body, mentions) = self.macro_body("endcall")?;
        let caller = Macro { name: "caller".into(), parameters, defaults, body, mentions };
        Ok(StatementKind::Call(call, Arc::new(caller)))
    }

    fn macro_with(&mut self, name: Arc<str>, end: &str) -> Parsed<Macro> {
        let (parameters, defaults) = self.parameters()?;
        let (body, mentions) = self.macro_body(end)?;
        Ok(Macro { name, parameters, defaults, body, mentions })
    }

    fn macro_body(&mut self, end: &str) -> Parsed<(Body, Mentions)> {
        let around = std::mem::take(&mut self.mentions);
        let body = self.outside_of_loops(|parser| parser.block(end))?;
        let mentions = self.mentions;
        // What a macro mentions is mentioned by those around it, too.
        self.mentions = around.and(mentions);
        Ok((body, mentions))
    }

    fn parameters(&mut self) -> Parsed<(Vec<Arc<str>>, Vec<super::ast::Expr>)> {
        self.expect_operator("(")?;
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            parameters.push(self.expect_name()?);
            if self.skip_operator("=") {
                defaults.push(self.expression()?);
            } else if !defaults.is_empty() {
                return Err(self.unexpected("a default"));
            }
        }
        Ok((parameters, defaults))
    }

    /// One or more targets with commas between.
    fn target(&mut self, with_attribute: bool) -> Parsed<Target> {
        let first = self.single_target(with_attribute)?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_operator(",") {
            if self.is_name("in") || self.is_operator("=") || self.is_operator(")") {
                break;
            }
            targets.push(self.single_target(with_attribute)?);
        }
        Ok(Target::Tuple(targets))
    }

    fn single_target(&mut self, with_attribute: bool) -> Parsed<Target> {
        if self.skip_operator("(") {
            let target = self.nested(|parser| parser.target(with_attribute))?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if with_attribute && self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.expect_name()?));
        }
        match &*name {
            "true" | "false" | "none" | "True" | "False" | "None" => Err(format!("`{name}` cannot be assigned to")),
            _ => Ok(Target::Name(name)),
        }
    }
}
