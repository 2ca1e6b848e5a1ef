//! Several messages as one: what a rule says of hundreds of VEs at the same moment is one mail, and not hundreds.
//!
//! Gathered is what one channel is to tell of one rule and one kind: that it fires, that it still does, that it is
//! over. What nobody took is sent again as it was first sent, so that a receiver that had it knows it by its id.
//!
//! | name in templates | of several |
//! |---|---|
//! | `count` | how many |
//! | `ve`, `ve_id`, `value` | each one's, with `, ` between |
//! | `since`, `time` | of the first, of the last |
//! | `summary` | each one's, a line each, cut off with a count of those left out |
//! | all others | what they have in common |
//!
//! In JSON `alerts` has each one, whole; `ve`, `ve_id` and `value` stand there only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use notify::Message;
use serde_json::Value;

use super::message::Told;

/// Size to which the words of several are listed. A program finds them in its environment, where the kernel takes no
/// string above 128 KiB (`MAX_ARG_STRLEN`, execve(2)).
const WORDS_BYTES_MAX: usize = 16 << 10;
/// Names in a subject.
const SUBJECT_NAMES_MAX: usize = 3;

/// Messages that go out as one, the oldest first; at least one.
#[derive(Debug)]
pub(super) struct Group {
    messages: Vec<registry::Message>,
    /// What they say; why not for one that cannot be read, which is alone.
    told: Result<Vec<Told>, String>,
}

/// Puts together what goes out as one, in the order of the oldest of each.
pub(super) fn together(messages: Vec<registry::Message>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for one in apart(messages) {
        match groups.iter_mut().find(|group| group.takes(&one)) {
            Some(group) => group.add(one),
            None => groups.push(one),
        }
    }
    groups
}

/// Leaves each message for itself.
pub(super) fn apart(messages: Vec<registry::Message>) -> Vec<Group> {
    messages.into_iter().map(Group::of_one).collect()
}

impl Group {
    fn of_one(message: registry::Message) -> Self {
        let told = serde_json::from_str(&message.body)
            .map(|told| vec![told])
            .map_err(|error| format!("message {} cannot be read: {error}", message.id));
        Self {
            messages: vec![message],
            told,
        }
    }

    /// Whether another one belongs here: of the same rule and kind, and both new, or put off to the same time.
    fn takes(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (self.first(), other.first()) else {
            return false;
        };
        let kind = |(message, told): (&registry::Message, &Told)| {
            let put_off = (message.attempts > 0).then_some((message.attempts, message.next));
            let of = (told.rule.clone(), told.severity.clone());
            let what = (told.condition.clone(), told.state.clone(), told.again);
            (put_off, of, what)
        };
        kind(own) == kind(others)
    }

    fn add(&mut self, other: Self) {
        self.messages.extend(other.messages);
        if let (Ok(own), Ok(others)) = (&mut self.told, other.told) {
            own.extend(others);
        }
    }

    fn first(&self) -> Option<(&registry::Message, &Told)> {
        self.messages.first().zip(self.told.as_ref().ok()?.first())
    }

    /// The messages as they wait.
    pub(super) fn messages(&self) -> &[registry::Message] {
        &self.messages
    }

    pub(super) fn into_messages(self) -> Vec<registry::Message> {
        self.messages
    }

    /// The rule that it is of; none for what cannot be read.
    pub(super) fn rule(&self) -> Option<&str> {
        self.first().map(|(_, told)| told.rule.as_str())
    }

    /// Whether nobody was asked to take it yet.
    pub(super) fn is_new(&self) -> bool {
        self.messages.iter().all(|message| message.attempts == 0)
    }

    /// As it is sent. `prefix` makes numbers of messages known outside of this node.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub(super) fn message(&self, prefix: &str) -> Result<Message, String> {
        let told = self.told.as_ref().map_err(Clone::clone)?;
        let numbers: Vec<i64> = self.messages.iter().map(|message| message.id).collect();
        Ok(of_several(told, &numbers, prefix))
    }
}

/// One message of at least one.
pub(super) fn of_several(told: &[Told], numbers: &[i64], prefix: &str) -> Message {
    let single = |(told, number): (&Told, &i64)| told.message(format!("{prefix}-{number}"));
    let mut singles: Vec<Message> = told.iter().zip(numbers).map(single).collect();
    let alerts: Vec<Value> = singles.iter().map(|one| one.json.clone()).collect();
    let mut message = singles.swap_remove(0);
    if let ([first, _, ..], [begin, .., end]) = (told, numbers) {
        let id = format!("{prefix}-{begin}-{end}-{}", told.len());
        message = common(first, told, id);
    }
    let count = told.len();
    message.fields.insert("count".to_owned(), count.to_string());
    if let Some(map) = message.json.as_object_mut() {
        map.insert("count".to_owned(), count.into());
        map.insert("alerts".to_owned(), alerts.into());
    }
    message
}

/// What several have in common, and their lists.
fn common(first: &Told, told: &[Told], id: String) -> Message {
    let since = told.iter().map(|one| one.since).min();
    let time = told.iter().map(|one| one.time).max();
    let whole = Told {
        since: since.unwrap_or(first.since),
        time: time.unwrap_or(first.time),
        summary: words(told),
        ..first.clone()
    };
    let mut all = whole.message(id);
    all.subject = subject(first, told);
    all.text = whole.text();
    let list = |of: &dyn Fn(&Told) -> String| -> String {
        told.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let lists = [
        ("subject", all.subject.clone()),
        ("text", all.text.clone()),
        ("ve", list(&|one| one.name().to_owned())),
        (
            "ve_id",
            list(&|one| one.ve_id.map_or_else(String::new, |id| id.to_string())),
        ),
        ("value", list(&|one| one.value.to_string())),
    ];
    let lists: BTreeMap<String, String> =
        lists.map(|(name, value)| (name.to_owned(), value)).into();
    all.fields.extend(lists);
    if let Some(map) = all.json.as_object_mut() {
        for name in ["ve", "ve_id", "value"] {
            map.remove(name);
        }
    }
    all
}

/// The words of each, a line each, as far as there is room.
fn words(told: &[Told]) -> String {
    let mut text = String::new();
    for (at, one) in told.iter().enumerate() {
        if at > 0 && text.len() + one.summary.len() > WORDS_BYTES_MAX {
            // Writing to a String does not fail.
            let _ = write!(text, "\nand {} more", told.len() - at);
            break;
        }
        if at > 0 {
            text.push('\n');
        }
        text.push_str(&one.summary);
    }
    text
}

/// The subject with the first names, and how many there are besides.
fn subject(first: &Told, told: &[Told]) -> String {
    let names: Vec<&str> = told
        .iter()
        .map(Told::name)
        .take(SUBJECT_NAMES_MAX)
        .collect();
    let more = match told.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    first.subject_about(&format!("{}{more}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::message::{FIELDS, tests::told};

    fn of(id: i64, name: &str, state: &str) -> registry::Message {
        let told = Told {
            ve: Some(name.to_owned()),
            ve_id: u32::try_from(id).ok(),
            state: state.to_owned(),
            time: 1_763_721_194 + id.unsigned_abs(),
            summary: format!("{name} is short"),
            ..told()
        };
        registry::Message {
            id,
            channel: "ops".to_owned(),
            body: serde_json::json!(told).to_string(),
            attempts: 0,
            next: id.unsigned_abs(),
        }
    }

    fn numbers(groups: &[Group]) -> Vec<Vec<i64>> {
        let of = |group: &Group| group.messages.iter().map(|message| message.id).collect();
        groups.iter().map(of).collect()
    }

    #[test]
    fn one_rule_and_kind_go_together() {
        let mut broken = of(3, "c", "firing");
        broken.body = "broken".to_owned();
        let mut other = of(5, "e", "firing");
        other.body = other.body.replace("memory-high", "pool-high");
        let all = vec![
            of(1, "a", "firing"),
            of(2, "b", "resolved"),
            broken,
            of(4, "d", "firing"),
            other,
        ];
        let groups = together(all.clone());
        assert_eq!(numbers(&groups), [vec![1, 4], vec![2], vec![3], vec![5]]);
        assert!(groups[2].message("one").is_err() && groups[2].rule().is_none());
        assert_eq!(numbers(&apart(all)).len(), 5);
    }

    #[test]
    fn what_was_put_off_goes_as_it_went() {
        let put_off = |id, attempts, next| registry::Message {
            attempts,
            next,
            ..of(id, "a", "firing")
        };
        let groups = together(vec![
            put_off(1, 1, 90),
            put_off(2, 1, 90),
            put_off(3, 1, 91),
            put_off(4, 0, 90),
            put_off(5, 0, 95),
        ]);
        assert_eq!(numbers(&groups), [vec![1, 2], vec![3], vec![4, 5]]);
        let id = groups[0].message("one").unwrap().id;
        assert_eq!(id, "one-1-2-2");
        assert_eq!([groups[0].is_new(), groups[2].is_new()], [false, true]);
    }

    #[test]
    fn several_have_lists_and_json_has_each() {
        let names = ["a", "b", "c", "d", "e"];
        let all = (1..).zip(names).map(|(id, name)| of(id, name, "firing"));
        let message = together(all.collect())[0].message("one").unwrap();
        let known: Vec<&str> = message.fields.keys().map(String::as_str).collect();
        assert_eq!(known, FIELDS);
        for (name, value) in [
            ("count", "5"),
            ("ve", "a, b, c, d, e"),
            ("ve_id", "1, 2, 3, 4, 5"),
            ("time", "2025-11-21T10:33:19.000Z"),
            ("rule", "memory-high"),
            ("id", "one-1-5-5"),
        ] {
            assert_eq!(message.fields[name], value, "{name}");
        }
        let subject = "[warning] firing on one: memory-high a, b, c and 2 more";
        assert_eq!(message.subject, subject);
        assert_eq!(message.fields["subject"], subject);
        assert!(message.text.starts_with("a is short\nb is short\n"));
        assert_eq!(message.fields["text"], message.text);
        let json = &message.json;
        assert_eq!(
            (&json["count"], &json["id"]),
            (&5.into(), &"one-1-5-5".into())
        );
        assert!(json["ve"].is_null() && json["value"].is_null());
        assert_eq!(json["alerts"].as_array().unwrap().len(), 5);
        assert_eq!(json["alerts"][4]["ve"], "e");
        assert_eq!(json["alerts"][4]["id"], "one-5");
    }

    #[test]
    fn one_alone_is_as_it_would_be_and_has_a_list_of_one() {
        let alone = of_several(&[told()], &[7], "one");
        let own = told().message("one-7".to_owned());
        assert_eq!(
            (&alone.id, &alone.subject, &alone.text, &alone.fields),
            (&own.id, &own.subject, &own.text, &own.fields)
        );
        assert_eq!(alone.json["alerts"][0], own.json);
        assert_eq!(
            (&alone.json["count"], &alone.json["ve"]),
            (&1.into(), &"web".into())
        );
    }

    #[test]
    fn words_have_a_bound_and_tell_what_is_left_out() {
        let long = Told {
            summary: "x".repeat(1_000),
            ..told()
        };
        let all = vec![long; 100];
        let text = words(&all);
        assert!(text.len() <= WORDS_BYTES_MAX + 1_000, "{}", text.len());
        assert!(
            text.ends_with("\nand 84 more"),
            "{}",
            &text[text.len() - 20..]
        );
    }
}
