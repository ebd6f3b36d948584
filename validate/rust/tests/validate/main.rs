//! The validator from outside: the corpus, the log lookup, properties, and the documentation.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code stops at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "test data have the shape that is written here")]

mod anchor;
mod cases;
mod corpus;
mod directory;
mod docs;
mod draft;
mod lookup;
mod named;
mod properties;
