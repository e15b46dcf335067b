use lock::{Error, locked};

struct Order {
    id: Option<u64>,
}

#[locked(id = "order:{order.id}")]
async fn not_display(order: &Order) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "order:{order.number}")]
async fn no_such_field(order: &Order) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "order:{self.id}")]
async fn no_receiver(order: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "order:{id}")]
async fn called_unused(_id: u64) -> Result<(), Error> {
    Ok(())
}

fn main() {}
