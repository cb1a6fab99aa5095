//! Handlers in any language: what they are told of a split, and their calls on the way. How they answer is in
//! [`crate::handler::said`]. Commands ([`super::exec`]) and URLs ([`super::push`]) talk alike.

mod calls;
mod request;

pub(super) use calls::{Calls, Shares};
pub(super) use request::{INPUTS_END, Request, add_inputs};

use crate::handler::HandlerError;

/// The most that a reduce may be given at once: in one line, or in one request.
const INPUTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The inputs of a reduce, and the end of its object.
pub(super) async fn inputs(calls: &Calls) -> Result<Vec<u8>, HandlerError> {
    let mut inputs = Vec::new();
    let mut after = 0;
    loop {
        let page = calls.inputs(after).await?;
        let Some(last) = page.last() else { break };
        add_inputs(&mut inputs, &page, after == 0)?;
        after = last.split_no;
        if inputs.len() > INPUTS_BYTES_MAX {
            let message =
                format!("the inputs of this reduce have more than {INPUTS_BYTES_MAX} bytes: no request may");
            return Err(HandlerError::new(message).class("inputs"));
        }
    }
    inputs.extend_from_slice(INPUTS_END);
    Ok(inputs)
}
