//! Handlers in any language: what they are told of a split, and their calls on the way. How they answer is in
//! [`crate::handler::said`]. Commands ([`super::exec`]) and URLs ([`super::push`]) talk alike.

mod calls;
mod request;

pub(super) use calls::{Calls, Shares};
pub(super) use request::{Inputs, Request};

use crate::handler::HandlerError;

/// The most that a reduce may be given at once: in one line, or in one request.
const INPUTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The inputs of a reduce, and the end of its object.
pub(super) async fn inputs(calls: &Calls) -> Result<Vec<u8>, HandlerError> {
    let (mut pages, mut inputs) = (Inputs::new(calls), Vec::new());
    while pages.add_to(&mut inputs).await? {
        if inputs.len() > INPUTS_BYTES_MAX {
            let message =
                format!("the inputs of this reduce have more than {INPUTS_BYTES_MAX} bytes: no request may");
            return Err(HandlerError::new(message).class("inputs"));
        }
    }
    Ok(inputs)
}
