//! Texts with names to be filled in: `{ve} is {state}`.
//!
//! `{name}` becomes the value, `{name|json}` the value as a string of JSON with its quotes, so that a
//! body of JSON stays one whatever a value holds. `{{` and `}}` are braces. There are no loops and no conditions:
//! who wants those runs a command.

use std::collections::BTreeMap;

/// Why a template is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no partner.
    #[error(
        "a brace has no partner in `{0}`; write braces that are meant as such as `{{{{` and `}}}}`"
    )]
    Brace(String),
    /// A name is not known.
    #[error("there is no `{name}` to fill in; there are {known}")]
    Name {
        /// What was written.
        name: String,
        /// What there is.
        known: String,
    },
}

/// Fills in a template.
///
/// # Errors
/// Refuses braces without a partner and names that `fields` does not have.
pub fn render(template: &str, fields: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    fill(template, |name| fields.get(name).cloned()).map_err(|failure| match failure {
        Failure::Brace(text) => TemplateError::Brace(text),
        Failure::Name(name) => TemplateError::Name {
            name,
            known: fields.keys().cloned().collect::<Vec<_>>().join(", "),
        },
    })
}

/// Whether a template names only what is `known`.
///
/// # Errors
/// As [`render`].
pub fn check(template: &str, known: &[&str]) -> Result<(), TemplateError> {
    let fields = known
        .iter()
        .map(|name| ((*name).to_owned(), String::new()))
        .collect();
    render(template, &fields).map(drop)
}

enum Failure {
    Brace(String),
    Name(String),
}

fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let near = |rest: &str| Failure::Brace(rest.chars().take(30).collect());
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            out.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            out.push('}');
            rest = after;
        } else {
            let within = rest.strip_prefix('{').ok_or_else(|| near(rest))?;
            let (name, after) = within.split_once('}').ok_or_else(|| near(rest))?;
            let (name, json) = match name.strip_suffix("|json") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let filled =
                value(name).ok_or_else(|| Failure::Name(name.chars().take(30).collect()))?;
            match json {
                true => out.push_str(&serde_json::Value::String(filled).to_string()),
                false => out.push_str(&filled),
            }
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_stay_within_json() {
        let fields = [("ve".to_owned(), "a\"b\n".to_owned())].into();
        assert_eq!(render("{ve}!", &fields).unwrap(), "a\"b\n!");
        let body = render("{{\"text\": {ve|json}}}", &fields).unwrap();
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["text"], "a\"b\n");
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refused = |template| check(template, &["ve", "rule"]).unwrap_err().to_string();
        assert!(
            refused("{who}").contains("no `who`"),
            "{}",
            refused("{who}")
        );
        for template in ["{ve", "ve}", "{\"a\": 1}"] {
            assert!(check(template, &["ve"]).is_err(), "{template}");
        }
        assert_eq!(check("{rule}: {ve|json}", &["ve", "rule"]), Ok(()));
    }
}
