//! The sweep file, checked; and the plan that follows from it. Pure: the machine is looked at
//! through `form::host` only.

pub(crate) mod def;
mod hardware;
mod load;
pub(crate) mod parse;
pub(crate) mod plan;
mod variants;
