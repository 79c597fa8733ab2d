//! Templates as text and as trees: the part of Go's `text/template` that rule and receiver files use.
//!
//! Our own reader: no crate reads Go's templates with their pipelines, variables and trimming, and everything that an
//! operator's files hold today is written in them.

use super::functions;
use super::lexer::{Piece, Token, pieces};

/// What a template consists of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Print(Pipeline),
    /// `{{ $x := 1 }}` or `{{ $x = 1 }}`.
    Set {
        name: String,
        is_new: bool,
        pipeline: Pipeline,
    },
    If {
        branches: Vec<(Pipeline, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        pipeline: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        value: Option<String>,
        pipeline: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template {
        name: String,
        pipeline: Option<Pipeline>,
    },
}

/// Commands, each of which gets the result of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipeline(pub(crate) Vec<Command>);

/// A function with arguments, or one operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Call { function: String, arguments: Vec<Operand> },
    Operand(Operand),
}

/// A value, and the fields of it that are meant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub(crate) base: Base,
    pub(crate) fields: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Base {
    Dot,
    Variable(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Group(Box<Pipeline>),
    /// A function without arguments.
    Call(String),
}

/// How deep actions may stand in one another.
const DEPTH_MAX: usize = 50;

/// What was read: the template itself, and those that it defines.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) body: Vec<Node>,
    pub(crate) defined: Vec<(String, Vec<Node>)>,
}

/// Reads a template. Variables of these names are there from the beginning.
pub(crate) fn parse(text: &str, variables: &[&str]) -> Result<Parsed, String> {
    let pieces = pieces(text)?;
    let mut reader = Reader {
        pieces: pieces.into_iter(),
        variables: variables.iter().map(|name| (*name).to_owned()).collect(),
        defined: Vec::new(),
        depth: 0,
    };
    let (body, end) = reader.block()?;
    if let Some(end) = end {
        return Err(format!("unexpected {{{{{}}}}}", end.word()));
    }
    Ok(Parsed { body, defined: reader.defined })
}

struct Reader {
    pieces: std::vec::IntoIter<Piece>,
    /// Names in scope, innermost last.
    variables: Vec<String>,
    defined: Vec<(String, Vec<Node>)>,
    depth: usize,
}

/// What ends a block.
enum End {
    End,
    Else(Vec<Token>),
}

impl End {
    fn word(&self) -> &'static str {
        match self {
            End::End => "end",
            End::Else(_) => "else",
        }
    }
}

impl Reader {
    /// Nodes up to `end` or `else`, or up to the end of the text.
    fn block(&mut self) -> Result<(Vec<Node>, Option<End>), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("actions stand more than {DEPTH_MAX} deep in one another"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let tokens = trimmed(tokens);
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(End::End)));
                }
                "else" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(End::Else(trimmed(tokens[1..].to_vec())))));
                }
                "if" => nodes.push(self.if_node(trimmed(tokens[1..].to_vec()))?),
                "with" | "range" => nodes.push(self.scope_node(&keyword, trimmed(tokens[1..].to_vec()))?),
                "define" => self.define(&tokens[1..])?,
                "template" => nodes.push(self.template(trimmed(tokens[1..].to_vec()))?),
                "block" | "break" | "continue" => return Err(format!("{keyword} is not supported")),
                _ => nodes.push(self.action(&tokens)?),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    /// The rest of a block, and of its `else`.
    fn body_and_else(&mut self, word: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let held = self.variables.len();
        let (body, end) = self.block()?;
        self.variables.truncate(held);
        let otherwise = match end {
            None => return Err(format!("{word} without end")),
            Some(End::End) => Vec::new(),
            Some(End::Else(rest)) if rest.is_empty() => {
                let (otherwise, end) = self.block()?;
                self.variables.truncate(held);
                if !matches!(end, Some(End::End)) {
                    return Err(format!("else of {word} without end"));
                }
                otherwise
            }
            Some(End::Else(_)) => return Err(format!("else of {word} takes no condition")),
        };
        Ok((body, otherwise))
    }

    fn if_node(&mut self, condition: Vec<Token>) -> Result<Node, String> {
        let held = self.variables.len();
        let (mut branches, mut condition) = (Vec::new(), condition);
        loop {
            let pipeline = self.declaring(&condition)?;
            let (body, end) = self.block()?;
            self.variables.truncate(held);
            branches.push((pipeline, body));
            match end {
                None => return Err("if without end".to_owned()),
                Some(End::End) => return Ok(Node::If { branches, otherwise: Vec::new() }),
                Some(End::Else(rest)) => match rest.first() {
                    None => {
                        let (otherwise, end) = self.block()?;
                        self.variables.truncate(held);
                        return match end {
                            Some(End::End) => Ok(Node::If { branches, otherwise }),
                            _ => Err("else without end".to_owned()),
                        };
                    }
                    Some(Token::Word(word)) if word == "if" => condition = trimmed(rest[1..].to_vec()),
                    Some(_) => return Err("expected if behind else".to_owned()),
                },
            }
        }
    }

    fn scope_node(&mut self, word: &str, tokens: Vec<Token>) -> Result<Node, String> {
        let held = self.variables.len();
        let (names, rest) = declared(&tokens)?;
        let pipeline = self.pipeline(rest)?;
        self.variables.extend(names.iter().cloned());
        let (body, otherwise) = self.body_and_else(word)?;
        self.variables.truncate(held);
        if word == "with" {
            if !names.is_empty() {
                return Err("with takes no variable here".to_owned());
            }
            return Ok(Node::With { pipeline, body, otherwise });
        }
        let (key, value) = match names.as_slice() {
            [] => (None, None),
            [value] => (None, Some(value.clone())),
            [key, value] => (Some(key.clone()), Some(value.clone())),
            _ => return Err("range takes at most two variables".to_owned()),
        };
        Ok(Node::Range { key, value, pipeline, body, otherwise })
    }

    fn define(&mut self, tokens: &[Token]) -> Result<(), String> {
        let name = match trimmed(tokens.to_vec()).as_slice() {
            [Token::Text(name)] => name.clone(),
            _ => return Err("define takes a quoted name".to_owned()),
        };
        let (body, otherwise) = self.body_and_else("define")?;
        if !otherwise.is_empty() {
            return Err("define has no else".to_owned());
        }
        self.defined.push((name, body));
        Ok(())
    }

    fn template(&mut self, tokens: Vec<Token>) -> Result<Node, String> {
        let Some(Token::Text(name)) = tokens.first() else {
            return Err("template takes a quoted name".to_owned());
        };
        let rest = trimmed(tokens[1..].to_vec());
        let pipeline = if rest.is_empty() { None } else { Some(self.pipeline(&rest)?) };
        Ok(Node::Template { name: name.clone(), pipeline })
    }

    fn action(&mut self, tokens: &[Token]) -> Result<Node, String> {
        if let [Token::Variable(name), rest @ ..] = tokens {
            let rest = match rest {
                [Token::Blank, rest @ ..] => rest,
                rest => rest,
            };
            if let [mark @ (Token::Declare | Token::Assign), rest @ ..] = rest {
                let is_new = *mark == Token::Declare;
                let pipeline = self.pipeline(&trimmed(rest.to_vec()))?;
                if !is_new && !self.variables.contains(name) {
                    return Err(format!("undefined variable {name:?}"));
                }
                if is_new {
                    self.variables.push(name.clone());
                }
                return Ok(Node::Set { name: name.clone(), is_new, pipeline });
            }
        }
        if tokens.is_empty() {
            return Err("missing value for command".to_owned());
        }
        Ok(Node::Print(self.pipeline(tokens)?))
    }

    /// The condition of an `if`.
    fn declaring(&mut self, tokens: &[Token]) -> Result<Pipeline, String> {
        let (names, rest) = declared(tokens)?;
        if !names.is_empty() {
            return Err("if takes no variable here".to_owned());
        }
        self.pipeline(rest)
    }

    fn pipeline(&self, tokens: &[Token]) -> Result<Pipeline, String> {
        let mut commands = Vec::new();
        for part in split(tokens)? {
            let mut operands = Vec::new();
            let mut rest = trimmed(part.to_vec());
            let function = match rest.first() {
                Some(Token::Word(word)) if !matches!(word.as_str(), "true" | "false" | "nil") => {
                    Some(known(word)?.to_owned())
                }
                Some(_) => None,
                None => return Err("missing value for command".to_owned()),
            };
            if function.is_some() {
                rest.remove(0);
            }
            let mut rest = rest.as_slice();
            while let [first, ..] = rest {
                if *first == Token::Blank {
                    rest = &rest[1..];
                    continue;
                }
                let (operand, after) = self.operand(rest)?;
                operands.push(operand);
                rest = after;
            }
            commands.push(match function {
                Some(function) => Command::Call { function, arguments: operands },
                None if operands.len() == 1 => Command::Operand(operands.remove(0)),
                None => return Err("can't give argument to non-function".to_owned()),
            });
        }
        if commands[1..].iter().any(|command| matches!(command, Command::Operand(_))) {
            return Err("non executable command in pipeline".to_owned());
        }
        Ok(Pipeline(commands))
    }

    fn operand<'a>(&self, tokens: &'a [Token]) -> Result<(Operand, &'a [Token]), String> {
        let (first, mut rest) = tokens.split_first().ok_or("missing value for command")?;
        let mut fields = Vec::new();
        let base = match first {
            Token::Dot => Base::Dot,
            Token::Field(name) => {
                fields.push(name.clone());
                Base::Dot
            }
            Token::Variable(name) => {
                if !self.variables.contains(name) {
                    return Err(format!("undefined variable {name:?}"));
                }
                Base::Variable(name.clone())
            }
            Token::Text(text) => Base::Text(text.clone()),
            Token::Int(value) => Base::Int(*value),
            Token::Float(value) => Base::Float(*value),
            Token::Word(word) => match word.as_str() {
                "true" | "false" => Base::Bool(word == "true"),
                "nil" => Base::Nil,
                _ => Base::Call(known(word)?.to_owned()),
            },
            Token::Open => {
                let end = closing(rest)?;
                let inner = self.pipeline(&trimmed(rest[..end].to_vec()))?;
                rest = &rest[end + 1..];
                Base::Group(Box::new(inner))
            }
            other => return Err(format!("unexpected {other:?} in operand")),
        };
        while let [Token::Field(name), after @ ..] = rest {
            fields.push(name.clone());
            rest = after;
        }
        if !matches!(rest.first(), None | Some(Token::Blank)) {
            return Err(format!("unexpected {:?} in operand", rest[0]));
        }
        Ok((Operand { base, fields }, rest))
    }
}

fn known(word: &str) -> Result<&str, String> {
    match functions::why_not(word) {
        None => Ok(word),
        Some(why) => Err(why),
    }
}

/// Without blanks at both ends.
fn trimmed(mut tokens: Vec<Token>) -> Vec<Token> {
    while tokens.last() == Some(&Token::Blank) {
        tokens.pop();
    }
    while tokens.first() == Some(&Token::Blank) {
        tokens.remove(0);
    }
    tokens
}

/// The variables before `:=`, and what stands behind it.
fn declared(tokens: &[Token]) -> Result<(Vec<String>, &[Token]), String> {
    let Some(at) = tokens.iter().position(|token| *token == Token::Declare) else {
        return Ok((vec![], tokens));
    };
    let mut names = Vec::new();
    for token in &tokens[..at] {
        match token {
            Token::Variable(name) => names.push(name.clone()),
            Token::Comma | Token::Blank => {}
            other => return Err(format!("unexpected {other:?} before :=")),
        }
    }
    Ok((names, &tokens[at + 1..]))
}

/// The commands of a pipeline.
fn split(tokens: &[Token]) -> Result<Vec<&[Token]>, String> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.checked_sub(1).ok_or("unexpected right paren")?,
            Token::Pipe if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err("unclosed left paren".to_owned());
    }
    parts.push(&tokens[start..]);
    Ok(parts)
}

/// Where the group that was just opened is closed.
fn closing(tokens: &[Token]) -> Result<usize, String> {
    let mut depth = 1;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => {}
        }
        if depth > DEPTH_MAX {
            break;
        }
    }
    Err("unclosed left paren".to_owned())
}
