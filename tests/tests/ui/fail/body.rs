use lock::{Error, debounced, locked};

#[locked(id = "a")]
async fn last_expression() -> Result<String, Error> {
    Ok(1)
}

#[locked(id = "a")]
async fn early_return(early: bool) -> Result<String, Error> {
    if early {
        return Ok(());
    }
    Ok(String::new())
}

#[locked(id = "a")]
async fn question_mark() -> Result<(), Error> {
    std::fs::read("a")?;
    Ok(())
}

#[debounced]
async fn statement_at_the_end() -> u32 {
    1;
}

#[debounced]
async fn wrong_value() -> u32 {
    "one"
}

#[locked(id = "a")]
async fn not_mutable(list: Vec<u32>) -> Result<(), Error> {
    list.push(1);
    Ok(())
}

#[locked(id = "a")]
async fn guard_not_asked_for() -> Result<u64, Error> {
    Ok(guard.fencing_token())
}

fn main() {}
