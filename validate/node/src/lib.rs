//! The addon behind the package `chancery`: the relying party of `chancery-relying-party`, as
//! functions that take and give text and numbers.
//!
//! `lib/index.cjs` is the other half, and the only caller: it checks types, cuts tokens that are too
//! long, and makes objects and errors of the answers. What crosses between the two is told in
//! `answer.rs`. Nothing here blocks the event loop: whatever needs I/O runs on the runtime of
//! `later.rs` and answers by a callback. A panic becomes a JavaScript error.

mod answer;
mod contents;
mod later;
mod settings;
mod text;

use std::cell::RefCell;
use std::rc::Rc;

use chancery_relying_party::{Judgement, RejectionCode, RelyingParty};
use napi::bindgen_prelude::{Either, Function, FunctionCallContext, Object, ToNapiValue};
use napi::{Env, Error, Result};
use napi_derive::napi;
use serde_json::json;

use crate::answer::Answer;
use crate::contents::Contents;
use crate::settings::Settings;
use crate::text::with_token;

/// The table of docs/rejections.md as JSON: `[code, {meaning, remedy, retryable}]` for each code.
#[napi(catch_unwind)]
#[must_use]
pub fn rejection_codes() -> String {
    let told = |code: &RejectionCode| {
        let (meaning, remedy) = (code.meaning(), code.remedy());
        json!([code, {"meaning": meaning, "remedy": remedy, "retryable": code.retryable()}])
    };
    RejectionCode::ALL.iter().map(told).collect::<serde_json::Value>().to_string()
}

/// Makes a relying party of `settings`, the JSON of `settings.rs`; `on_finding` gets each finding as
/// JSON and does not keep the process alive. The functions of the answer hold the relying party; with
/// the last of them it goes, and its background work ends.
///
/// Answers a text instead when the settings cannot be met: what is wrong with them, or a rejection.
///
/// # Errors
/// Only when Node refuses something.
#[napi(catch_unwind)]
pub fn open<'env>(
    env: &'env Env,
    settings: String,
    on_finding: Function<'env, String, ()>,
) -> Result<Either<Object<'env>, String>> {
    let parsed: Settings = match serde_json::from_str(&settings) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Either::B(error.to_string())),
    };
    let findings = later::findings(&on_finding)?;
    let cache = parsed.cache;
    let party = match parsed.build(later::handle()?, findings) {
        Ok(party) => party,
        Err(error) => return Ok(Either::B(answer::not_built(&error))),
    };
    functions(env, &party, cache).map(Either::A)
}

/// The functions of one relying party.
fn functions<'env>(env: &'env Env, party: &RelyingParty, cache: usize) -> Result<Object<'env>> {
    // All are called by one thread, that of `env`.
    let contents = Rc::new(RefCell::new(Contents::new(cache)));
    let mut functions = Object::new(env)?;

    let (judge, held) = (party.clone(), Rc::clone(&contents));
    add(env, &mut functions, "judge", move |call| {
        with_token(&call, |token| decided(judge.judge(token), &held))
    })?;

    let (judge, held) = (party.clone(), Rc::clone(&contents));
    add(env, &mut functions, "judgeAt", move |call| {
        let now = u64::try_from(call.get::<i64>(1)?).unwrap_or(0);
        with_token(&call, |token| decided(judge.judge_at(token, now), &held))
    })?;

    add(env, &mut functions, "content", move |call| {
        let number = call.get::<f64>(0)?;
        let text = contents.borrow().get(number).map(|token| answer::accepted(token, None));
        text.ok_or_else(|| Error::from_reason("no content has this number"))
    })?;

    for (name, answer_later) in later::FUNCTIONS {
        let party = party.clone();
        add(env, &mut functions, name, move |call| {
            answer_later(&party, call.get(0)?, &call.get(1)?)
        })?;
    }

    let party = party.clone();
    add(env, &mut functions, "status", move |_| Ok(answer::status(&party.status())))?;
    Ok(functions)
}

fn add<Answer: ToNapiValue>(
    env: &Env,
    functions: &mut Object<'_>,
    name: &str,
    function: impl Fn(FunctionCallContext<'_>) -> Result<Answer> + 'static,
) -> Result<()> {
    let function = env.create_function_from_closure::<(), Answer, _>(name, function)?;
    functions.set(name, function)
}

/// What a judgement without I/O came to; nothing if it needs I/O.
fn decided(judgement: Judgement, contents: &RefCell<Contents>) -> Option<Answer> {
    match judgement {
        Judgement::NeedsIo => None,
        Judgement::Decided(Ok(accepted)) if accepted.log.is_none() => {
            Some(match contents.borrow_mut().number(&accepted.token) {
                Some(number) => Either::A(number),
                None => Either::B(answer::accepted(&accepted.token, None)),
            })
        }
        Judgement::Decided(verdict) => Some(Either::B(answer::verdict(verdict))),
    }
}
