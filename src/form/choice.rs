//! The names of a serde enum's variants, so that a file's choices are the type's own.

use serde::Deserialize;
use serde::de::{self, Visitor};

/// The variant that `word` names; otherwise every name that would do.
pub(crate) fn choose<T: for<'de> Deserialize<'de>>(
    word: &str,
) -> Result<T, &'static [&'static str]> {
    let mut names: &'static [&'static str] = &[];
    T::deserialize(OneWord { word, names: &mut names }).map_err(|_| names)
}

/// A deserializer that holds one word and notes which words the type would take.
struct OneWord<'w> {
    word: &'w str,
    names: &'w mut &'static [&'static str],
}

impl<'de> de::Deserializer<'de> for OneWord<'_> {
    type Error = de::value::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.names = variants;
        visitor.visit_enum(de::value::StrDeserializer::new(self.word))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.word)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Taste {
        Sweet,
        QuiteSour,
    }

    #[test]
    fn the_names_are_the_types_own() {
        assert_eq!(choose("sweet"), Ok(Taste::Sweet));
        assert_eq!(choose("quite_sour"), Ok(Taste::QuiteSour));
        assert_eq!(choose::<Taste>("Sweet"), Err(["sweet", "quite_sour"].as_slice()));
    }
}
