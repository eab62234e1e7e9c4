//! One entry of a data set: what was said, in any of the three forms. Pure.
//!
//! Invariant: a conversation begins with the user, and its sides take turns.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What people said, as far as it can be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Talk {
    /// What the engine is told before the conversation.
    pub(crate) system: Option<String>,
    /// What the user said, and what was answered; only the last answer may be missing.
    pub(crate) turns: Vec<(String, Option<String>)>,
    /// The length of the first answer, where only that is known.
    pub(crate) output_tokens: Option<u32>,
    /// What its class field says.
    pub(crate) class: Option<String>,
}

/// Why an entry is no conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTalk {
    /// The file is wrong here.
    Wrong(String),
    /// It is a right entry that cannot be asked again.
    Unusable(&'static str),
}

/// The keys that matter; all others are read over.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    conversations: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    prompt: Option<Value>,
    output_tokens: Option<Value>,
}

#[derive(Deserialize)]
struct ShareGptTurn {
    from: String,
    value: String,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    tool_calls: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    System,
    User,
    Engine,
}

/// Reads one entry. `class_field`: the key whose text is the class.
pub(crate) fn talk(json: &[u8], class_field: Option<&str>) -> Result<Talk, NoTalk> {
    let text = std::str::from_utf8(json).map_err(|_| wrong("it is not UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        return Err(wrong("an entry is an object, `{…}`"));
    }
    let entry: Entry<'_> = serde_json::from_str(text).map_err(|error| wrong(said(&error)))?;
    let mut talk = match (entry.conversations, entry.messages, entry.prompt) {
        (Some(turns), None, None) => alternating(sharegpt(turns)?)?,
        (None, Some(messages), None) => alternating(chat(messages)?)?,
        (None, None, Some(Value::String(prompt))) => alternating(vec![(Side::User, prompt)])?,
        (None, None, Some(_)) => return Err(wrong("`prompt` is no text")),
        (None, None, None) => {
            return Err(wrong("it has none of `conversations`, `messages` and `prompt`"));
        }
        _ => return Err(wrong("it has more than one of `conversations`, `messages` and `prompt`")),
    };
    talk.output_tokens = entry.output_tokens.map(|value| tokens(&value)).transpose()?;
    talk.class = class_field.and_then(|field| class(text, field));
    Ok(talk)
}

fn wrong(why: impl Into<String>) -> NoTalk {
    NoTalk::Wrong(why.into())
}

/// Without the line that serde counts within the entry: it is another one in the file.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (what, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    what.to_owned()
}

fn tokens(value: &Value) -> Result<u32, NoTalk> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| wrong(format!("`output_tokens` is {value}, no number of tokens")))
}

/// A number or a switch names a class, too.
pub(in crate::workload) fn class(text: &str, field: &str) -> Option<String> {
    let entry: Map<String, Value> = serde_json::from_str(text).ok()?;
    match entry.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        value => Some(value.to_string()),
    }
}

fn sharegpt(turns: &RawValue) -> Result<Vec<(Side, String)>, NoTalk> {
    let turns: Vec<ShareGptTurn> = serde_json::from_str(turns.get())
        .map_err(|error| wrong(format!("`conversations`: {}", said(&error))))?;
    let side = |from: &str| match from {
        "human" | "user" => Some(Side::User),
        "gpt" | "chatgpt" | "bing" | "bard" | "assistant" | "model" => Some(Side::Engine),
        "system" => Some(Side::System),
        _ => None,
    };
    turns.into_iter().map(|turn| sided(side(&turn.from), "from", &turn.from, turn.value)).collect()
}

fn chat(messages: &RawValue) -> Result<Vec<(Side, String)>, NoTalk> {
    let messages: Vec<ChatMessage> = serde_json::from_str(messages.get())
        .map_err(|error| wrong(format!("`messages`: {}", said(&error))))?;
    let one = |message: ChatMessage| {
        let side = match message.role.as_str() {
            "user" => Some(Side::User),
            "assistant" => Some(Side::Engine),
            "system" | "developer" => Some(Side::System),
            "tool" | "function" => return Err(NoTalk::Unusable("it calls tools")),
            _ => None,
        };
        if !message.tool_calls.is_null() {
            return Err(NoTalk::Unusable("it calls tools"));
        }
        sided(side, "role", &message.role, content(message.content)?)
    };
    messages.into_iter().map(one).collect()
}

/// A text, or a list of parts that are texts.
fn content(content: Value) -> Result<String, NoTalk> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let text = |part: &Value| match part.get("text") {
                Some(Value::String(text)) => Ok(text.clone()),
                _ => Err(NoTalk::Unusable("a message is more than text")),
            };
            Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err(wrong("`content` of a message is no text")),
    }
}

fn sided(
    side: Option<Side>,
    key: &str,
    name: &str,
    text: String,
) -> Result<(Side, String), NoTalk> {
    match side {
        Some(side) => Ok((side, text)),
        None => Err(wrong(format!("`{key}` is {name:?}, which is no side of a conversation"))),
    }
}

/// Messages as turns.
fn alternating(messages: Vec<(Side, String)>) -> Result<Talk, NoTalk> {
    let mut talk = Talk::default();
    for (side, text) in messages {
        if text.trim().is_empty() {
            return Err(NoTalk::Unusable("a message is empty"));
        }
        match (side, talk.turns.last_mut()) {
            (Side::System, None) if talk.system.is_none() => talk.system = Some(text),
            (Side::System, _) => {
                return Err(NoTalk::Unusable("a system message is not its beginning"));
            }
            (Side::Engine, None) => return Err(NoTalk::Unusable("the user does not begin")),
            (Side::Engine, Some((_, answer @ None))) => *answer = Some(text),
            (Side::User, None | Some((_, Some(_)))) => talk.turns.push((text, None)),
            (Side::Engine, Some((_, Some(_)))) | (Side::User, Some((_, None))) => {
                return Err(NoTalk::Unusable("one side speaks twice in a row"));
            }
        }
    }
    if talk.turns.is_empty() {
        return Err(NoTalk::Unusable("nothing is said in it"));
    }
    Ok(talk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, system: Option<&str>, turns: &[(&str, Option<&str>)]) {
        let got = talk(json.as_bytes(), None).unwrap();
        let want: Vec<(String, Option<String>)> =
            turns.iter().map(|(a, b)| ((*a).to_owned(), b.map(str::to_owned))).collect();
        assert_eq!((got.system.as_deref(), got.turns), (system, want));
    }

    #[test]
    fn each_form_is_known_by_its_key() {
        check(
            r#"{"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "markdown": null},
                {"from": "human", "value": "c"}]}"#,
            None,
            &[("a", Some("b")), ("c", None)],
        );
        check(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"},
                {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "c"}]}"#,
            Some("s"),
            &[("a\nb", Some("c"))],
        );
        check(r#"{"prompt": "a \"quoted\" word"}"#, None, &[("a \"quoted\" word", None)]);
        let known =
            talk(br#"{"prompt": "a", "output_tokens": 7, "tier": 2}"#, Some("tier")).unwrap();
        assert_eq!((known.output_tokens, known.class.as_deref()), (Some(7), Some("2")));
        let other = talk(br#"{"prompt": "a", "tier": {"x": 1}}"#, Some("tier")).unwrap();
        assert_eq!((other.output_tokens, other.class), (None, None));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (json, want) in [
            ("3", "an entry is an object"),
            ("{\"prompt\": \"a\"", "EOF while parsing an object"),
            ("{}", "none of `conversations`"),
            (r#"{"prompt": "a", "messages": []}"#, "more than one of"),
            (r#"{"prompt": 3}"#, "`prompt` is no text"),
            (r#"{"prompt": "a", "output_tokens": 0}"#, "`output_tokens` is 0, no number of tokens"),
            (r#"{"conversations": [{"from": "human"}]}"#, "`conversations`: missing field `value`"),
            (r#"{"conversations": [{"from": "cat", "value": "m"}]}"#, "`from` is \"cat\""),
            (r#"{"messages": [{"role": "user"}]}"#, "`content` of a message is no text"),
        ] {
            let got = talk(json.as_bytes(), None).unwrap_err();
            let NoTalk::Wrong(why) = &got else { panic!("{json}: {got:?}") };
            assert!(why.contains(want), "{why}");
        }
        assert_eq!(talk(b"{\"prompt\": \"\xff\"}", None), Err(wrong("it is not UTF-8")));
    }

    proptest::proptest! {
        #[test]
        fn no_change_of_an_entry_makes_it_panic(at in 0..100_usize, text in "\\PC{0,5}") {
            let right = r#"{"messages": [{"role": "user", "content": [{"text": "a"}]}, {"role": "assistant", "content": "b"}], "t": 1}"#;
            let changed = format!("{}{text}{}", &right[..at], &right[at..]);
            talk(changed.as_bytes(), Some("t")).ok();
        }
    }

    #[test]
    fn what_cannot_be_asked_again_is_no_mistake() {
        let said = |sides: &[&str]| {
            let each: Vec<String> = sides
                .iter()
                .map(|side| format!("{{\"role\": \"{side}\", \"content\": \"x\"}}"))
                .collect();
            talk(format!("{{\"messages\": [{}]}}", each.join(",")).as_bytes(), None)
        };
        for (sides, why) in [
            (vec![], "nothing is said in it"),
            (vec!["system"], "nothing is said in it"),
            (vec!["assistant", "user"], "the user does not begin"),
            (vec!["user", "user"], "one side speaks twice in a row"),
            (vec!["user", "assistant", "assistant"], "one side speaks twice in a row"),
            (vec!["user", "system"], "a system message is not its beginning"),
            (vec!["user", "tool"], "it calls tools"),
        ] {
            assert_eq!(said(&sides), Err(NoTalk::Unusable(why)), "{sides:?}");
        }
        assert_eq!(
            talk(br#"{"prompt": " \n"}"#, None),
            Err(NoTalk::Unusable("a message is empty"))
        );
        let image = br#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#;
        assert_eq!(talk(image, None), Err(NoTalk::Unusable("a message is more than text")));
    }
}
