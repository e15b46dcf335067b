//! `#[debounced(durable)]`: a call that is kept.

use std::{fmt, future::Future};

use crate::{Debounce, Durable, DurableOutput, DurableRun, Error, Locks, Receipt};

/// The arguments of a durable function, as one value.
#[diagnostic::on_unimplemented(
    message = "arguments of the types `{Self}` cannot be kept in the store",
    label = "serde cannot serialize and deserialize all of these",
    note = "derive `serde::Serialize` and `serde::Deserialize` for each type"
)]
pub trait Stored: serde::Serialize + serde::de::DeserializeOwned + Send + 'static {}

// Not recommended, or there would be one message for each trait of serde, and none would name the
// fix.
#[diagnostic::do_not_recommend]
impl<A: serde::Serialize + serde::de::DeserializeOwned + Send + 'static> Stored for A {}

/// Registers a durable function for the id of a debounce.
type Register<A> = Box<dyn Fn(&Debounce) -> Result<Durable<A>, Error>>;

/// A durable function: made in one place, so that what is wrong with it is reported once.
pub struct DurableFunction<A> {
    register: Register<A>,
    encode: fn(&A) -> Result<String, Error>,
}

impl<A> fmt::Debug for DurableFunction<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableFunction").finish_non_exhaustive()
    }
}

/// Makes a durable function of its name and its handler.
pub fn durable_function<A, F, Fut>(name: &'static str, handler: F) -> DurableFunction<A>
where
    A: Stored,
    F: Fn(A, DurableRun) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: DurableOutput,
{
    DurableFunction {
        register: Box::new(move |debounce| debounce.durable(name, handler)),
        encode: crate::durable::encode,
    }
}

/// Keeps the call of a durable function.
pub async fn durable_call<A>(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    function: fn() -> DurableFunction<A>,
    arguments: A,
) -> Result<Receipt, Error> {
    let (durable, arguments) = {
        let DurableFunction { register, encode } = function();
        let durable = register(&configure(locks?.debounce(id)))?;
        let arguments = encode(&arguments).map_err(|error| durable.about(error))?;
        (durable, arguments)
    };
    durable.keep(arguments).await
}

/// Lets this process run the calls of a durable function.
pub fn durable_register<A>(
    locks: &Locks,
    name: &str,
    configure: impl FnOnce(Debounce) -> Debounce,
    function: fn() -> DurableFunction<A>,
) -> Result<(), Error> {
    (function().register)(&configure(locks.debounce(name))).map(drop)
}
