//! What of a path is counted. Callgrind is told of two functions here by their names.

use std::hint::black_box;

/// Callgrind counts what this function does, and what it calls.
pub(crate) const COUNTED: &str = "*::meter::counted*";

/// Callgrind writes its count down, and begins at zero, when this function is called.
pub(crate) const CONCLUDED: &str = "*::meter::concluded*";

/// How many operations of a path are counted. Enough that what happens once in a hundred operations weighs the same in every
/// build.
pub(crate) const OPERATIONS: u64 = 1_000;

/// How many go before them, for what only the first ones do, such as a thread's registration.
pub(crate) const WARM_UP: u64 = 100;

/// Runs paths, and names them on standard output in the order in which callgrind writes their counts.
pub(crate) struct Meter(());

impl Meter {
    pub(crate) fn new() -> Meter {
        Meter(())
    }

    /// Counts `operation`, on what `prepare` makes of each operation's number. Neither that nor the drop of what the
    /// operation returns is counted.
    pub(crate) fn path<I, O>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut(u64) -> I,
        mut operation: impl FnMut(I) -> O,
    ) {
        for number in 0..WARM_UP {
            operation(prepare(number));
        }
        for number in WARM_UP..WARM_UP + OPERATIONS {
            let input = prepare(number);
            drop(counted(&mut operation, input));
        }
        println!("{name}");
        concluded();
    }
}

#[inline(never)]
fn counted<I, O>(operation: &mut impl FnMut(I) -> O, input: I) -> O {
    black_box(operation(black_box(input)))
}

#[inline(never)]
fn concluded() {
    black_box(());
}
