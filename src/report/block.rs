//! What a section is made of. Text is plain: a writer escapes it for its own format.

use crate::report::table::Table;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    Subheading(String),
    Text(String),
    /// Text that must not be overlooked.
    Notice(String),
    List(Vec<String>),
    /// Terms and what they mean.
    Terms(Vec<(String, String)>),
    Table(Table),
    /// Lines as they are.
    Code(String),
}

impl Block {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn subheading(text: impl Into<String>) -> Self {
        Self::Subheading(text.into())
    }
}
