use std::rc::Rc;

use lock::{Error, debounced, locked};

#[locked(id = "a")]
async fn not_send() -> Result<(), Error> {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    drop(shared);
    Ok(())
}

#[debounced]
async fn argument(shared: Rc<u32>) -> u32 {
    *shared
}

fn spawn<F: Future + Send>(_: F) {}

fn main() {
    spawn(not_send());
    spawn(argument(Rc::new(1)));
}
