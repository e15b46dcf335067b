use lock::{Error, locked};

#[locked]
async fn no_arguments() -> Result<(), Error> {
    Ok(())
}

#[locked(wait = 500)]
async fn no_id() -> Result<(), Error> {
    Ok(())
}

#[locked("invoice:{invoice_id}")]
async fn no_name(invoice_id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id)]
async fn no_value() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "")]
async fn empty() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "~nightly")]
async fn reserved() -> Result<(), Error> {
    Ok(())
}

struct Opaque;

#[locked(id = Opaque)]
async fn not_display() -> Result<(), Error> {
    Ok(())
}

fn main() {}
