//! The engine over the scripted model: its thread, its queues and its faults,
//! with real concurrency and no real model.

mod cancel;
mod faults;
mod full;
mod harness;
mod limits;
mod lookup;
mod pausing;
mod prefix;
mod random;
mod shift;
mod streams;
