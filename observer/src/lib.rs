//! `observer` watches a `python -m dramatiq` process tree from outside and says what happened.
//!
//! Data flows one way: [`source`] → [`event`] → [`session`] → [`model`] → {[`diagnose`], [`compare`], [`export`],
//! [`render`]}.

pub mod amqp;
pub mod capability;
pub mod cli;
pub mod compare;
pub mod daemon;
pub mod diagnose;
pub mod event;
pub mod export;
pub mod fold;
mod memory;
pub mod model;
pub mod python;
pub mod recording;
pub mod render;
pub mod session;
pub mod source;
pub mod words;
