//! Parameters of a recipe: `${NAME}` and the values that `--set NAME=VALUE` gives them.

use std::path::Path;
use std::str::FromStr;

/// A parameter with its value, as `--set` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    name: String,
    value: String,
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once('=') else {
            return Err("write a name and a value, like TEXT=my/texts".to_owned());
        };
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain(name) {
            return Err(format!("`{name}` is not a parameter's name: use letters, digits and `_`"));
        }
        // It is put into TOML, mostly between quotes.
        if let Some(c) = value.chars().find(|c| c.is_control() || matches!(c, '"' | '\\')) {
            return Err(format!("the value of {name} holds {c:?}, which a recipe cannot take; use another place"));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// `text` with the parameters' values in their places; lines keep their numbers. `folder` is the recipe's own. An
/// error is a line with what is wrong there.
pub(super) fn fill_in(text: &str, given: &[Parameter], folder: &Path) -> Result<String, (usize, String)> {
    let mut used = vec![false; given.len()];
    let mut filled = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let mut rest = line;
        // What a comment says of a parameter is for people.
        while !line.trim_start().starts_with('#') {
            let Some((before, after)) = rest.split_once("${") else { break };
            let at_line = |reason: String| (index + 1, reason);
            let Some((name, after)) = after.split_once('}') else {
                return Err(at_line("the parameter that begins with `${` has no `}`".to_owned()));
            };
            filled.push_str(before);
            // Of several values the last counts, as with flags.
            match given.iter().rposition(|parameter| parameter.name == name) {
                Some(place) => {
                    filled.push_str(&given[place].value);
                    given.iter().zip(&mut used).for_each(|(other, used)| *used |= other.name == name);
                }
                None if name == "RECIPE" => filled.push_str(&folder.to_string_lossy()),
                None => {
                    let what = format!("the parameter ${{{name}}} has no value; give it one with `--set {name}=...`");
                    return Err(at_line(format!("{what}, a folder for example")));
                }
            }
            rest = after;
        }
        filled.push_str(rest);
    }
    match given.iter().zip(used).find(|(_, used)| !used) {
        None => Ok(filled),
        Some((parameter, _)) => {
            let name = &parameter.name;
            Err((1, format!("the recipe does not use ${{{name}}}; leave `--set {name}=..` out or correct its name")))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn filled(text: &str, set: &[&str]) -> Result<String, (usize, String)> {
        let set: Vec<Parameter> = set.iter().map(|set| set.parse().unwrap()).collect();
        fill_in(text, &set, Path::new("dir"))
    }

    #[test]
    fn values_take_their_places() {
        let text = "a = \"${A}/${B}\" # ${A}\n# ${C} is described here\nb = ${B}${RECIPE}";
        assert_eq!(filled(text, &["A=x y", "B=2"]).unwrap(), "a = \"x y/2\" # x y\n# ${C} is described here\nb = 2dir");
        assert_eq!(filled("${A}", &["A=1", "A=2"]).unwrap(), "2");
        assert_eq!(filled("\n${A", &[]).unwrap_err().0, 2);
        assert!(filled("\n${A}", &[]).unwrap_err().1.contains("--set A="));
        assert!(filled("", &["A=1"]).unwrap_err().1.contains("does not use ${A}"));
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for wrong in ["TEXT", "=x", "A B=x", "A=\"", "A=\\", "A=\n"] {
            assert!(wrong.parse::<Parameter>().is_err(), "{wrong:?}");
        }
        assert_eq!("A=".parse::<Parameter>().unwrap().value, "");
    }
}
