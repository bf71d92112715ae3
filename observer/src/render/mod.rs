//! Terminal text. Knows the model and events; decides nothing.

mod broker;
pub mod conversation;
pub mod diff;
mod disk;
pub mod explain;
pub mod imports;
pub mod json;
pub mod ladder;
pub mod live;
pub mod messages;
pub mod modules;
pub mod queues;
pub(crate) mod reconcile;
pub mod style;
pub mod summary;
pub mod timeline;

#[cfg(test)]
mod tests;
