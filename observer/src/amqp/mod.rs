//! Byte streams → AMQP 0-9-1. Knows bytes and the protocol; nothing of sessions.

pub mod conversation;
pub mod dramatiq;
pub mod mask;
pub mod message;
pub mod method;
pub mod names;
pub mod stream;
pub mod table;
