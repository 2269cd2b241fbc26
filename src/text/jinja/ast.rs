//! A template as it was read.

use std::sync::Arc;

/// An expression with the depth of its tree, which bounds every recursion over it.
#[derive(Debug)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) depth: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Arguments),
    Filter(Box<Expr>, FilterCall),
    Test(Box<Expr>, Arc<str>, Arguments),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
}

impl Kind {
    /// The depth of the deepest expression inside.
    pub(super) fn depth_inside(&self) -> usize {
        let of = |expr: &Expr| expr.depth;
        let list = |list: &[Expr]| list.iter().map(of).max().unwrap_or(0);
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Name(_) => 0,
            Self::List(items) | Self::Tuple(items) | Self::Concat(items) => list(items),
            Self::Dict(pairs) => pairs.iter().map(|(key, value)| of(key).max(of(value))).max().unwrap_or(0),
            Self::Attribute(inner, _) | Self::Not(inner) | Self::Negative(inner) | Self::Positive(inner) => of(inner),
            Self::Item(left, right) | Self::Binary(_, left, right) | Self::And(left, right) | Self::Or(left, right) => {
                of(left).max(of(right))
            }
            Self::Slice(inner, bounds) => {
                bounds.iter().flatten().map(|bound| of(bound)).max().unwrap_or(0).max(of(inner))
            }
            Self::Call(inner, arguments) | Self::Test(inner, _, arguments) => of(inner).max(arguments.depth()),
            Self::Filter(inner, call) => of(inner).max(call.arguments.depth()),
            Self::Compare(inner, rest) => rest.iter().map(|(_, expr)| of(expr)).max().unwrap_or(0).max(of(inner)),
            Self::If { test, then, otherwise } => {
                otherwise.as_ref().map_or(0, |expr| of(expr)).max(of(test)).max(of(then))
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) keywords: Vec<(Arc<str>, Expr)>,
    /// `*list`.
    pub(super) list: Option<Box<Expr>>,
    /// `**mapping`.
    pub(super) mapping: Option<Box<Expr>>,
}

impl Arguments {
    fn depth(&self) -> usize {
        let dynamic = self.list.iter().chain(&self.mapping).map(AsRef::as_ref);
        let keywords = self.keywords.iter().map(|(_, expr)| expr);
        self.positional.iter().chain(keywords).chain(dynamic).map(|expr| expr.depth).max().unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct FilterCall {
    pub(super) name: Arc<str>,
    pub(super) arguments: Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

pub(super) type Body = Vec<Statement>;

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: usize,
    pub(super) kind: StatementKind,
}

#[derive(Debug)]
pub(super) enum StatementKind {
    Text(Arc<str>),
    Print(Expr),
    For(Arc<For>),
    /// Conditions with what they guard, and what holds otherwise.
    If(Vec<(Expr, Body)>, Body),
    Set(Target, Expr),
    SetBlock(Target, Vec<FilterCall>, Body),
    Macro(Arc<Macro>),
    /// A call of a macro with a body, which is its `caller`.
    Call(Expr, Arc<Macro>),
    Filter(Vec<FilterCall>, Body),
    With(Vec<(Target, Expr)>, Body),
    /// `generation`, `block` and `autoescape false`: a body whose variables are its own.
    Scope(Body),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    /// The depth of the target.
    pub(super) depth: usize,
    pub(super) items: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Arc<str>,
    pub(super) parameters: Vec<Arc<str>>,
    /// Of the last parameters.
    pub(super) defaults: Vec<Expr>,
    pub(super) body: Body,
    /// Which of the names that are there without being declared it mentions.
    pub(super) mentions: Mentions,
}

/// Further arguments that a macro takes: those whose names it mentions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mentions {
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
    pub(super) caller: bool,
}

impl Mentions {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            varargs: self.varargs || other.varargs,
            kwargs: self.kwargs || other.kwargs,
            caller: self.caller || other.caller,
        }
    }
}

/// Something that can be assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Arc<str>),
    Tuple(Vec<Target>),
    /// A namespace and its attribute.
    Attribute(Arc<str>, Arc<str>),
}

impl Target {
    /// The number of tuples in each other.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Tuple(targets) => targets.iter().map(Self::depth).max().unwrap_or(0) + 1,
            Self::Name(_) | Self::Attribute(..) => 0,
        }
    }
}
