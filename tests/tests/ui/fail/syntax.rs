use lock::{Error, debounced, locked};

#[locked(id = )]
async fn no_value() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a" wait = 500)]
async fn no_comma() -> Result<(), Error> {
    Ok(())
}

#[locked(id: "a")]
async fn colon() -> Result<(), Error> {
    Ok(())
}

#[locked(id("a"))]
async fn list() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", , wait = 500)]
async fn comma() -> Result<(), Error> {
    Ok(())
}

#[debounced(wait = 500 +)]
async fn half_an_expression() {}

fn main() {}
