//! A process that uses larder as it is told: see `shared::order`. It ends when nobody can tell it anything any more.

mod bumper;
mod desk;
mod reader;
mod setup;
mod shelf;

use std::env;
use std::io;
use std::sync::Arc;
use std::thread;

use shared::order::{Numbered, Order};

use crate::desk::Desk;

fn main() {
    let settings = env::args().nth(1).expect("the settings are the argument");
    let desk = Arc::new(Desk::new(serde_json::from_str(&settings).expect("settings as JSON")));
    for line in io::stdin().lines() {
        let line = line.expect("read an order");
        let Numbered::<Order> { number, what } = serde_json::from_str(&line).expect("an order as JSON");
        let desk = desk.clone();
        // An order must not wait for another: one may be there to end the other.
        thread::spawn(move || desk.carry_out(number, what));
    }
}
