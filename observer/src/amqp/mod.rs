//! Byte streams → AMQP 0-9-1. Knows bytes and the protocol; nothing of sessions.

pub mod mask;
pub mod stream;
