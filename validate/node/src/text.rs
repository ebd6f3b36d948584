//! Reading a token out of JavaScript: one call, and no memory from the heap.
//!
//! napi's own conversion to `String` asks for the length first, which walks the text once more. The
//! two walks and the allocation cost as much as a tenth of judging a cached token. This is the one
//! `unsafe` of the crate.

use std::cell::RefCell;

use napi::bindgen_prelude::{FunctionCallContext, JsValue as _, Unknown};
use napi::{Error, Result, Status, sys};

/// `lib/index.cjs` hands over at most 16 Ki + 1 characters, each of at most three octets in UTF-8.
/// What would not fit here is cut off, and is refused as too long all the same.
const LONGEST: usize = 3 * (16 * 1024 + 1) + 1;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LONGEST].into());
}

/// Lets `judge` see the token that is the call's first argument.
///
/// # Errors
/// If the argument is not a string.
#[expect(unsafe_code, reason = "a call of Node-API with the arguments of a call from it")]
pub fn with_token<Answer>(
    call: &FunctionCallContext<'_>,
    judge: impl FnOnce(&str) -> Answer,
) -> Result<Answer> {
    let value = call.get::<Unknown<'_>>(0)?.raw();
    BUFFER.with_borrow_mut(|buffer| {
        let mut length = 0;
        // SAFETY: `value` is an argument of the call that `call.env` is in the middle of. Node writes
        // at most the buffer's length, a NUL at the end included, and tells how much without it.
        let status = unsafe {
            sys::napi_get_value_string_utf8(
                call.env.raw(),
                value,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut length,
            )
        };
        if status != sys::Status::napi_ok {
            return Err(Error::new(Status::from(status), "a token is a string"));
        }
        let text = buffer.get(..length).and_then(|octets| str::from_utf8(octets).ok());
        text.map(judge).ok_or_else(|| Error::from_reason("the token's text cannot be read"))
    })
}
