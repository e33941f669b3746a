//! Follows a table of PostgreSQL: whoever changes it, with whatever program, the cache hears of it by `LISTEN`.
//!
//! `cargo run --release --example change_feed -- 'host=localhost user=postgres'`

use std::collections::HashMap;
use std::error::Error;
use std::thread;
use std::time::Duration;

use larder::{Cache, Change, ChangeFeed, Connected, LoadError};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Config, NoTls};

/// The table, and a trigger that notifies of each record that changes: when, and only when, its transaction commits.
const SETUP: &str = "
    CREATE TABLE IF NOT EXISTS larder_records (id bigint PRIMARY KEY, name text NOT NULL);
    CREATE OR REPLACE FUNCTION larder_notify() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN PERFORM pg_notify('larder_records', ''); RETURN NULL; END IF;
        IF TG_OP <> 'INSERT' THEN PERFORM pg_notify('larder_records', OLD.id::text); END IF;
        IF TG_OP <> 'DELETE' THEN PERFORM pg_notify('larder_records', NEW.id::text); END IF;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER larder_rows AFTER INSERT OR UPDATE OR DELETE ON larder_records
        FOR EACH ROW EXECUTE FUNCTION larder_notify();
    CREATE OR REPLACE TRIGGER larder_all AFTER TRUNCATE ON larder_records
        FOR EACH STATEMENT EXECUTE FUNCTION larder_notify();";

/// The group of every record.
const ALL: &str = "records";

type Failure = Box<dyn Error + Send + Sync>;

/// The changes of the table, as notifications bring them.
struct Notifications {
    config: Config,
    client: Option<Client>,
}

impl ChangeFeed for Notifications {
    /// There is no way back: what was sent while nobody listened is gone.
    type Position = ();
    type Error = Failure;

    fn connect(&mut self, _after: Option<&()>) -> Result<Connected, Failure> {
        let mut client = self.config.connect(NoTls)?;
        client.batch_execute("LISTEN larder_records")?;
        self.client = Some(client);
        Ok(Connected::Gap(Change::invalidate([ALL])))
    }

    fn next(&mut self, within: Duration) -> Result<Option<(Change, ())>, Failure> {
        let client = self.client.as_mut().ok_or("there is no connection")?;
        let next = client.notifications().timeout_iter(within).next()?;
        match next {
            Some(notification) => {
                let id = notification.payload();
                let group = if id.is_empty() { ALL.to_owned() } else { group(id) };
                Ok(Some((Change::invalidate([group]), ())))
            }
            None if client.is_closed() => Err("the server closed the connection".into()),
            None => Ok(None),
        }
    }
}

fn group(id: impl std::fmt::Display) -> String {
    format!("record:{id}")
}

/// Returns the name of a record, if there is one. Each load begins a transaction of its own, so it sees what was committed
/// before it began.
fn name(records: &Cache<i64, Option<String>>, config: &Config, id: i64) -> Result<Option<String>, LoadError<Failure>> {
    records.get_or_load(&id, |load| {
        load.groups([group(id).as_str(), ALL]);
        let mut client = config.connect(NoTls)?;
        let row = client.query_opt("SELECT name FROM larder_records WHERE id = $1", &[&id])?;
        Ok(row.map(|row| row.get(0)))
    })
}

fn main() -> Result<(), Failure> {
    let Some(url) = std::env::args().nth(1) else {
        println!("Give the connection string of a PostgreSQL (14 or later) in which a table may be made, such as");
        println!("    cargo run --release --example change_feed -- 'host=localhost user=postgres dbname=test'");
        println!("then change the table larder_records (id, name) by any other program; records 1 to 3 are shown.");
        return Ok(());
    };
    let mut config: Config = url.parse()?;
    // So that a server that is gone without a word is found out, too.
    config.connect_timeout(Duration::from_secs(5)).keepalives_idle(Duration::from_secs(10));
    config.tcp_user_timeout(Duration::from_secs(10));
    config.connect(NoTls)?.batch_execute(SETUP)?;

    // Nothing here ever expires: what is shown is new because somebody told of it.
    let records: Cache<i64, Option<String>> = Cache::new(1_000);
    let follower = records.follow("records", Notifications { config: config.clone(), client: None })?;
    let (mut shown, mut feed) = (HashMap::new(), None);
    loop {
        let health = follower.health();
        let now = format!("{:?}, connections {}, gaps {}", health.state, health.connections, health.gaps);
        if feed.as_ref() != Some(&now) {
            println!(
                "feed: {now}{}",
                health.last_error.map_or(String::new(), |error| format!(", last error: {error}"))
            );
            feed = Some(now);
        }
        for id in 1..=3 {
            let found = match name(&records, &config, id) {
                Ok(name) => name.unwrap_or("none".to_owned()),
                Err(error) => error.to_string(),
            };
            if shown.get(&id) != Some(&found) {
                println!("record {id}: {found}");
                shown.insert(id, found);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}
