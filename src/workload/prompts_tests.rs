//! Small tokenizers of every kind that models come with.

use super::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// Words of three letters, `count` of them.
fn words(count: usize) -> Vec<String> {
    let letter = |n: usize| char::from(b"abcdefghijklmnopqrstuvwxyz"[n % 26]);
    (0..count).map(|n| [n / 676, n / 26, n].map(letter).into_iter().collect()).collect()
}

fn numbered(tokens: impl IntoIterator<Item = String>) -> Value {
    tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect()
}

fn tokenizer(model: &Value, pre: &Value, post: &Value) -> Value {
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 4,
        "strategy": "LongestFirst", "stride": 0}, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": pre, "post_processor": post, "decoder": null,
        "model": model
    })
}

/// One beginning-of-sequence token before every text.
fn template(token: &str) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [0], "tokens": [token]}}
    })
}

pub(crate) fn word_level() -> Value {
    let vocab = numbered(["[UNK]".to_owned()].into_iter().chain(words(300)));
    tokenizer(
        &json!({"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}),
        &json!({"type": "Whitespace"}),
        &template("[UNK]"),
    )
}

fn word_piece() -> Value {
    let pieces = words(60).into_iter().map(|word| format!("##{word}"));
    let vocab = numbered(["[UNK]".to_owned()].into_iter().chain(words(200)).chain(pieces));
    tokenizer(
        &json!({"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}),
        &json!({"type": "BertPreTokenizer"}),
        &Value::Null,
    )
}

/// BPE whose words are merged letter by letter, with `space` before each word.
fn bpe(space: char, bare_words_too: bool) -> (Value, Value) {
    let mut tokens: Vec<String> = ('a'..='z').map(String::from).collect();
    tokens.insert(0, "<s>".to_owned());
    tokens.push(space.to_string());
    let mut merges: Vec<[String; 2]> = Vec::new();
    let marked = words(150).into_iter().map(|word| format!("{space}{word}"));
    let bare = words(20).into_iter().filter(|_| bare_words_too);
    for word in marked.chain(bare) {
        let ends: Vec<usize> = word.char_indices().map(|(at, _)| at).skip(1).collect();
        for (at, end) in ends.iter().zip(ends.iter().skip(1).chain([&word.len()])) {
            let merge = [word[..*at].to_owned(), word[*at..*end].to_owned()];
            if !merges.contains(&merge) {
                merges.push(merge);
                tokens.push(word[..*end].to_owned());
            }
        }
    }
    (numbered(tokens), json!(merges))
}

fn byte_level(bare_words_too: bool) -> Value {
    let (vocab, merges) = bpe('\u{120}', bare_words_too);
    tokenizer(
        &json!({"type": "BPE", "vocab": vocab, "merges": merges}),
        &json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        &Value::Null,
    )
}

fn metaspace() -> Value {
    let (vocab, merges) = bpe('\u{2581}', false);
    let mut value = tokenizer(
        &json!({"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<s>"}),
        &json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false}),
        &template("<s>"),
    );
    value["added_tokens"] = json!([{"id": 0, "content": "<s>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true}]);
    value
}

/// An older form of it: the marks are made by the normalizer and nothing splits the text.
fn normalizer_marks() -> Value {
    let mut value = metaspace();
    value["pre_tokenizer"] = Value::Null;
    value["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}
    ]});
    value
}

/// The file of a tokenizer, and the folder it goes away with.
pub(crate) fn file(tokenizer: &Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    (folder, path)
}

fn prompter(tokenizer: &Value, tokens: u32, seed: u64) -> Result<Prompter, PromptError> {
    let (_folder, path) = file(tokenizer);
    Prompter::load(&path, tokens, Seed::new(seed))
}

#[track_caller]
fn check(tokenizer: &Value, shortest: u32, special: u32) {
    let (_folder, path) = file(tokenizer);
    let mut plain = Tokenizer::from_file(&path).unwrap();
    plain.with_truncation(None).unwrap();
    for tokens in [shortest, 7, 64, 513] {
        let prompter = prompter(tokenizer, tokens, 11).unwrap();
        for (user, turn) in [(0, 0), (0, 1), (5, 0)] {
            let prompt = prompter.prompt(user, turn).unwrap();
            let encoded = plain.encode(prompt.text.as_str(), false).unwrap();
            assert_eq!(encoded.len(), tokens as usize, "{}", prompt.text);
            assert_eq!(prompt.content_tokens, tokens);
            assert_eq!(prompt.total_tokens, Some(tokens + special));
            assert!(prompt.text.bytes().all(|b| b.is_ascii_lowercase() || b == b' '));
            assert!(!prompt.text.contains("  "));
        }
    }
}

#[test]
fn lengths_are_exact_for_every_kind_of_tokenizer() {
    check(&word_level(), 1, 1);
    check(&word_piece(), 1, 0);
    check(&byte_level(true), 2, 0);
    check(&byte_level(false), 4, 0);
    check(&metaspace(), 1, 1);
    check(&normalizer_marks(), 1, 1);
}

#[test]
fn a_first_word_without_its_space_costs_more() {
    // A word is as many tokens as letters at the start of a text and one behind a space.
    let prompt = prompter(&byte_level(false), 10, 3).unwrap().prompt(0, 0).unwrap();
    assert!(prompt.text.split(' ').count() < 10, "{}", prompt.text);
}

#[test]
fn a_length_that_no_text_has_is_an_error() {
    let result = prompter(&byte_level(false), 1, 3).unwrap().prompt(0, 0);
    assert!(matches!(result, Err(PromptError::NotExact { tokens: 1 })), "{result:?}");
}

#[test]
fn prompts_begin_differently() {
    let prompter = prompter(&word_level(), 128, 5).unwrap();
    let prompts: Vec<Vec<String>> = (0..40)
        .map(|user| prompter.prompt(user, user % 3).unwrap().text)
        .map(|text| text.split(' ').map(str::to_owned).collect())
        .collect();
    for (n, one) in prompts.iter().enumerate() {
        for other in prompts.iter().skip(n + 1) {
            let shared = one.iter().zip(other).take_while(|(a, b)| a == b).count();
            assert!(shared * 20 < 128, "{shared} leading words shared");
        }
    }
}

#[test]
fn prompts_are_a_function_of_seed_user_and_turn() {
    let make = |seed, user, turn| {
        prompter(&word_level(), 32, seed).unwrap().prompt(user, turn).unwrap().text
    };
    assert_eq!(make(1, 2, 3), make(1, 2, 3));
    assert_ne!(make(1, 2, 3), make(2, 2, 3));
    assert_ne!(make(1, 2, 3), make(1, 3, 2));
    assert_ne!(make(1, 2, 3), make(1, 2, 4));
}

#[test]
fn what_is_missing_is_said() {
    let missing = Prompter::load(Path::new("nowhere/tokenizer.json"), 8, Seed::new(1));
    assert!(missing.unwrap_err().to_string().contains("nowhere/tokenizer.json"));
    let broken = prompter(&json!({"model": 3}), 8, 1).unwrap_err();
    assert!(matches!(broken, PromptError::NoTokenizer { .. }), "{broken}");
    let mut few = word_level();
    few["model"]["vocab"] = json!({"[UNK]": 0, "ab": 1, "cd": 2});
    let few = prompter(&few, 8, 1).unwrap_err();
    assert!(matches!(few, PromptError::TooFewWords { found: 2, .. }), "{few}");
}

/// Tokens at the start that two prompts share, by the tokenizer itself.
fn shared_tokens(prompter: &Prompter, one: &str, two: &str) -> usize {
    let [one, two] = [one, two].map(|text| prompter.token_ids(text).unwrap());
    one.iter().zip(&two).take_while(|(a, b)| a == b).count()
}

#[test]
fn half_of_a_rag_prompt_is_its_document() {
    let (_folder, path) = file(&word_level());
    let load = || Prompter::load(&path, 200, Seed::new(4)).unwrap();
    let rag = load().shaped(Shape::Rag { shared: 0.5, documents: 4 });
    let prompts: Vec<String> = (0..40).map(|user| rag.prompt(user, 0).unwrap().text).collect();
    let mut firsts: Vec<&str> = Vec::new();
    let mut followers = 0;
    for prompt in &prompts {
        let shared = firsts.iter().map(|other| shared_tokens(&rag, other, prompt)).max();
        let share = f64::from(u32::try_from(shared.unwrap_or(0)).unwrap()) / 200.0;
        if share < 0.05 {
            firsts.push(prompt);
        } else {
            assert!((0.45..=0.55).contains(&share), "{share}");
            followers += 1;
        }
    }
    assert_eq!((firsts.len(), followers), (4, 36));
    let random = load();
    let plain: Vec<String> = (0..40).map(|user| random.prompt(user, 0).unwrap().text).collect();
    for pair in plain.windows(2) {
        assert!(shared_tokens(&random, &pair[0], &pair[1]) < 10);
    }
}

#[test]
fn mixed_lengths_are_exact_each() {
    use crate::workload::shape::{Lengths, Spread};
    let (_folder, path) = file(&word_level());
    let lengths = Lengths { min: 32, max: 512, spread: Spread::Uniform };
    let mixed = Prompter::load(&path, 512, Seed::new(4)).unwrap().shaped(Shape::Mixed(lengths));
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..30 {
        let prompt = mixed.prompt(user, 0).unwrap();
        let counted = mixed.token_ids(&prompt.text).unwrap().len();
        assert_eq!(counted, usize::try_from(prompt.total_tokens.unwrap()).unwrap());
        assert!((32..=512).contains(&prompt.content_tokens));
        seen.insert(prompt.content_tokens);
    }
    assert!(seen.len() > 20);
}
