//! Expressions from tokens, by Jinja's grammar.

use std::sync::Arc;

use super::ast::{Arguments, Comparison, Expr, FilterCall, Kind, Mentions, Operator};
use super::lexer::Token;

/// Greatest nesting of expressions and blocks.
const DEEPEST_NESTING: usize = 100;
/// Greatest depth of an expression's tree: chains of operators nest to the left.
const DEEPEST_TREE: usize = 400;

pub(super) type Parsed<T> = Result<T, String>;

pub(super) struct Parser {
    tokens: Vec<(Token, usize)>,
    position: usize,
    nesting: usize,
    /// Loops around the place, as far as a macro's body is not between.
    pub(super) loops: usize,
    pub(super) mentions: Mentions,
}

impl Parser {
    pub(super) fn new(tokens: Vec<(Token, usize)>) -> Self {
        Self { tokens, position: 0, nesting: 0, loops: 0, mentions: Mentions::default() }
    }

    pub(super) fn line(&self) -> usize {
        self.tokens.get(self.position).map_or(0, |(_, line)| *line)
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.position).map_or(&Token::End, |(token, _)| token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens.get(self.position + 1).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    /// Gives the token back that was taken last.
    pub(super) fn step_back(&mut self) {
        self.position -= 1;
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.position += usize::from(found);
        found
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Parsed<()> {
        if self.skip_operator(operator) { Ok(()) } else { Err(self.unexpected(&format!("{operator:?}"))) }
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if &**found == name)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.position += usize::from(found);
        found
    }

    pub(super) fn expect_name(&mut self) -> Parsed<Arc<str>> {
        match self.peek() {
            Token::Name(name) => {
                let name = Arc::clone(name);
                self.position += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> String {
        let found = match self.peek() {
            Token::Data(_) => "text".to_owned(),
            Token::PrintBegin => "`{{`".to_owned(),
            Token::PrintEnd => "`}}`".to_owned(),
            Token::BlockBegin => "`{%`".to_owned(),
            Token::BlockEnd => "`%}`".to_owned(),
            Token::Name(name) => format!("`{name}`"),
            Token::Text(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Operator(operator) => format!("`{operator}`"),
            Token::End => "its end".to_owned(),
        };
        format!("{wanted} is expected where {found} is (line {})", self.line())
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == DEEPEST_NESTING {
            return Err(format!("it is nested more than {DEEPEST_NESTING} levels deep (line {})", self.line()));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    /// True if the statement being read is not inside another.
    pub(super) fn is_outermost(&self) -> bool {
        self.nesting == 1
    }

    /// An expression, if its tree is not too deep.
    fn made(&self, kind: Kind) -> Parsed<Expr> {
        let depth = kind.depth_inside() + 1;
        if depth > DEEPEST_TREE {
            return Err(format!(
                "an expression has more than {DEEPEST_TREE} operators in a row (line {})",
                self.line()
            ));
        }
        Ok(Expr { kind, depth })
    }

    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        self.nested(|parser| {
            let mut then = parser.or()?;
            while parser.skip_name("if") {
                let test = Box::new(parser.or()?);
                let otherwise = if parser.skip_name("else") { Some(Box::new(parser.expression()?)) } else { None };
                then = parser.made(Kind::If { test, then: Box::new(then), otherwise })?;
            }
            Ok(then)
        })
    }

    /// An expression without a condition behind it.
    pub(super) fn or(&mut self) -> Parsed<Expr> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.made(Kind::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.made(Kind::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Expr> {
        if !self.skip_name("not") {
            return self.comparison();
        }
        let inner = self.nested(Self::not)?;
        self.made(Kind::Not(Box::new(inner)))
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.binary(0)?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::Unequal,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessOrEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if &**name == "in" => Comparison::In,
                Token::Name(name) if &**name == "not" && *self.peek_second() == Token::Name("in".into()) => {
                    self.position += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.position += 1;
            rest.push((comparison, self.binary(0)?));
        }
        if rest.is_empty() { Ok(left) } else { self.made(Kind::Compare(Box::new(left), rest)) }
    }

    /// Operators that bind at least as strongly as `level`: sums, `~`, products, powers.
    fn binary(&mut self, level: usize) -> Parsed<Expr> {
        const LEVELS: [&[(&str, Operator)]; 4] = [
            &[("+", Operator::Add), ("-", Operator::Subtract)],
            &[],
            &[
                ("*", Operator::Multiply),
                ("/", Operator::Divide),
                ("//", Operator::FloorDivide),
                ("%", Operator::Remainder),
            ],
            &[("**", Operator::Power)],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary(true) };
        let mut left = self.binary(level + 1)?;
        if level == 1 {
            let mut parts = vec![left];
            while self.skip_operator("~") {
                parts.push(self.binary(level + 1)?);
            }
            return match parts.len() {
                1 => parts.pop().ok_or_else(|| "an expression is expected".to_owned()),
                _ => self.made(Kind::Concat(parts)),
            };
        }
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.is_operator(sign)) {
            self.position += 1;
            let right = self.binary(level + 1)?;
            left = self.made(Kind::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self, with_filter: bool) -> Parsed<Expr> {
        let mut expr = if self.skip_operator("-") {
            let inner = self.nested(|parser| parser.unary(false))?;
            self.made(Kind::Negative(Box::new(inner)))?
        } else if self.skip_operator("+") {
            let inner = self.nested(|parser| parser.unary(false))?;
            self.made(Kind::Positive(Box::new(inner)))?
        } else {
            self.primary()?
        };
        expr = self.postfix(expr)?;
        if !with_filter {
            return Ok(expr);
        }
        loop {
            if self.is_operator("|") {
                let call = self.filter_call()?;
                expr = self.made(Kind::Filter(Box::new(expr), call))?;
            } else if self.skip_name("is") {
                expr = self.test(expr)?;
            } else if self.is_operator("(") {
                let arguments = self.arguments()?;
                expr = self.made(Kind::Call(Box::new(expr), arguments))?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let kind = match self.peek().clone() {
            Token::Name(name) => {
                self.position += 1;
                self.named(name)
            }
            Token::Text(text) => {
                self.position += 1;
                let mut text = text.to_string();
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.position += 1;
                }
                Kind::Text(text.into())
            }
            Token::Int(number) => {
                self.position += 1;
                Kind::Int(number)
            }
            Token::Float(number) => {
                self.position += 1;
                Kind::Float(number)
            }
            Token::Operator("(") => {
                self.position += 1;
                let inner = self.tuple(true, true)?;
                self.expect_operator(")")?;
                return Ok(inner);
            }
            Token::Operator("[") => {
                self.position += 1;
                Kind::List(self.separated("]", Self::expression)?)
            }
            Token::Operator("{") => {
                self.position += 1;
                Kind::Dict(self.separated("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_operator(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        self.made(kind)
    }

    fn named(&mut self, name: Arc<str>) -> Kind {
        match &*name {
            "true" | "True" => return Kind::Bool(true),
            "false" | "False" => return Kind::Bool(false),
            "none" | "None" => return Kind::None,
            "varargs" => self.mentions.varargs = true,
            "kwargs" => self.mentions.kwargs = true,
            "caller" => self.mentions.caller = true,
            _ => {}
        }
        Kind::Name(name)
    }

    /// Items up to `end`, which may follow a last comma.
    fn separated<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_operator(end) {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// An expression, or several with commas between, which are a tuple.
    pub(super) fn tuple(&mut self, with_condition: bool, in_parentheses: bool) -> Parsed<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let ends = matches!(self.peek(), Token::PrintEnd | Token::BlockEnd | Token::Operator(")"));
            if ends || !items.is_empty() && self.is_name("recursive") {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.nested(Self::or)? });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if is_tuple || items.is_empty() && in_parentheses {
            return self.made(Kind::Tuple(items));
        }
        items.pop().ok_or_else(|| self.unexpected("an expression"))
    }

    fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            expr = if self.skip_operator(".") {
                match self.next() {
                    Token::Name(name) => self.made(Kind::Attribute(Box::new(expr), name))?,
                    Token::Int(index) => {
                        let index = self.made(Kind::Int(index))?;
                        self.made(Kind::Item(Box::new(expr), Box::new(index)))?
                    }
                    _ => {
                        self.position -= 1;
                        return Err(self.unexpected("a name or a number"));
                    }
                }
            } else if self.skip_operator("[") {
                self.subscript(expr)?
            } else if self.is_operator("(") {
                let arguments = self.arguments()?;
                self.made(Kind::Call(Box::new(expr), arguments))?
            } else {
                return Ok(expr);
            };
        }
    }

    fn subscript(&mut self, expr: Expr) -> Parsed<Expr> {
        let mut bounds = [None, None, None];
        let mut colons = 0;
        while !self.is_operator("]") {
            if self.skip_operator(":") {
                colons += 1;
                if colons > 2 {
                    return Err(self.unexpected("`]`"));
                }
            } else if bounds[colons].is_some() {
                return Err(self.unexpected("`]`"));
            } else {
                bounds[colons] = Some(Box::new(self.tuple_item()?));
            }
        }
        self.expect_operator("]")?;
        match (colons, bounds) {
            (0, [Some(index), None, None]) => self.made(Kind::Item(Box::new(expr), index)),
            (0, _) => Err(self.unexpected("an index")),
            (_, bounds) => self.made(Kind::Slice(Box::new(expr), bounds)),
        }
    }

    /// Contents of the brackets after a value; several expressions with commas between are a tuple.
    fn tuple_item(&mut self) -> Parsed<Expr> {
        let first = self.expression()?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator(",") {
            items.push(self.expression()?);
        }
        self.made(Kind::Tuple(items))
    }

    pub(super) fn arguments(&mut self) -> Parsed<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.skip_operator(")") {
            if !first {
                self.expect_operator(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            first = false;
            let is_keyword = matches!(self.peek(), Token::Name(_)) && *self.peek_second() == Token::Operator("=");
            if self.skip_operator("**") {
                arguments.mapping = Some(Box::new(self.expression()?));
            } else if arguments.mapping.is_some() {
                return Err(self.unexpected("`)`"));
            } else if self.skip_operator("*") {
                arguments.list = Some(Box::new(self.expression()?));
            } else if is_keyword {
                let name = self.expect_name()?;
                self.position += 1;
                arguments.keywords.push((name, self.expression()?));
            } else if arguments.keywords.is_empty() && arguments.list.is_none() {
                arguments.positional.push(self.expression()?);
            } else {
                return Err(self.unexpected("an argument with a name"));
            }
        }
        Ok(arguments)
    }

    /// `|name(..)`.
    fn filter_call(&mut self) -> Parsed<FilterCall> {
        self.expect_operator("|")?;
        self.bare_filter_call()
    }

    fn bare_filter_call(&mut self) -> Parsed<FilterCall> {
        let name = self.expect_name()?;
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(FilterCall { name, arguments })
    }

    /// Filters in a row; the first is without its `|` where `starts_bare`.
    pub(super) fn filter_calls(&mut self, starts_bare: bool) -> Parsed<Vec<FilterCall>> {
        let mut calls = Vec::new();
        if starts_bare {
            calls.push(self.bare_filter_call()?);
        }
        while self.is_operator("|") {
            calls.push(self.filter_call()?);
        }
        Ok(calls)
    }

    fn test(&mut self, expr: Expr) -> Parsed<Expr> {
        let negated = self.skip_name("not");
        let name = self.expect_name()?;
        let mut arguments = Arguments::default();
        let takes_value = match self.peek() {
            Token::Operator("(") => {
                arguments = self.arguments()?;
                false
            }
            Token::Name(name) => !matches!(&**name, "else" | "or" | "and" | "is" | "if" | "not" | "in"),
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        if takes_value {
            let value = self.primary()?;
            arguments.positional.push(self.postfix(value)?);
        } else if self.is_name("is") {
            return Err(self.unexpected("the end of a test"));
        }
        let test = self.made(Kind::Test(Box::new(expr), name, arguments))?;
        if negated { self.made(Kind::Not(Box::new(test))) } else { Ok(test) }
    }
}
