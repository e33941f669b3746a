//! A web server whose pages are cached in all of its processes: ETags, groups by record, and a page of metrics.
//!
//! `cargo run --release --example web -- 127.0.0.1:11211 /tmp/records 127.0.0.1:8080`, with a memcached on that port;
//! several of them may share memcached and folder. Then:
//!
//! ```text
//! curl -X PUT -d Ann http://127.0.0.1:8080/record/7      # saves a record
//! curl -i http://127.0.0.1:8080/record/7                 # its page; once more, and the handler does not run
//! curl -i http://127.0.0.1:8080/                         # a page made from all records
//! curl http://127.0.0.1:8080/metrics
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Extension, IntoResponse};
use axum::routing::get;
use axum::{Router, serve};
use larder::http::{Depends, ETag, ResponseCache};
use larder::{Memcached, Namespace};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

/// How long a page may be kept in the cache at most, should nothing that it shows change.
const KEEP: Duration = Duration::from_secs(600);

/// What the handlers share.
struct Site {
    pages: ResponseCache,
    namespace: Namespace,
    /// Stands for the database: a file for each record.
    folder: PathBuf,
    renders: AtomicU64,
    metrics: PrometheusHandle,
}

type Shared = State<Arc<Site>>;

impl Site {
    fn records(&self) -> io::Result<BTreeMap<u32, String>> {
        let mut records = BTreeMap::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            // A file that is being written has another name.
            if let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                records.insert(id, fs::read_to_string(path)?);
            }
        }
        Ok(records)
    }

    /// Replaces a record at once, and returns whether there was none.
    fn store(&self, id: u32, name: &str) -> io::Result<bool> {
        let path = self.folder.join(id.to_string());
        let is_new = !path.exists();
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(name.as_bytes())?;
        file.persist(path)?;
        Ok(is_new)
    }

    /// Makes a page of `text`, which depends on these groups.
    fn page(&self, text: &str, groups: Vec<String>) -> impl IntoResponse + use<> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        // Weak, since the number of renders is not part of what it identifies.
        let tag = ETag::weak(&format!("{:x}", hasher.finish())).expect("digits make a tag");
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, tag.into());
        // Browsers ask each time; the cache answers them, as long as none of the groups is invalidated.
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
        let renders = self.renders.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!("{text}\nrender {renders} of process {}\n", std::process::id());
        (headers, Extension(Depends::on(groups).keep(KEEP)), body)
    }
}

async fn show(State(site): Shared, Path(id): Path<u32>) -> Result<impl IntoResponse, StatusCode> {
    // Few and small: not worth another thread.
    let name = fs::read_to_string(site.folder.join(id.to_string())).map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(site.page(&format!("record {id}: {name}"), vec![format!("record:{id}")]))
}

async fn list(State(site): Shared) -> Result<impl IntoResponse, StatusCode> {
    let records = site.records().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let lines: Vec<String> = records.iter().map(|(id, name)| format!("{id}: {name}")).collect();
    // All records that are there, and whether there are more.
    let groups = records.keys().map(|id| format!("record:{id}")).chain(["records".to_owned()]);
    Ok(site.page(&lines.join("\n"), groups.collect()))
}

/// Saves a record, and drops every page that was made from it, here and in the other processes.
async fn save(State(site): Shared, Path(id): Path<u32>, name: String) -> Result<StatusCode, StatusCode> {
    let is_new = site.store(id, &name).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    // After the record is saved, never before: what is rendered from here on shows it.
    let record = format!("record:{id}");
    let changed = [record.as_str(), "records"];
    let told = site.pages.invalidate_groups_async(if is_new { &changed[..] } else { &changed[..1] }).await;
    // Without memcached the other processes cannot be told yet: they will be.
    Ok(if told { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

async fn metrics(State(site): Shared) -> impl IntoResponse {
    site.namespace.publish_metrics();
    site.metrics.run_upkeep();
    ([(header::CACHE_CONTROL, "no-store")], site.metrics.render())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [memcached, folder, listen @ ..] = &args[..] else {
        return Err(
            "usage: web MEMCACHED FOLDER [LISTEN], as in web 127.0.0.1:11211 /tmp/records 127.0.0.1:8080".into()
        );
    };
    fs::create_dir_all(folder)?;
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let namespace = Namespace::builder("site", Memcached::connect(memcached)?).build()?;
    let pages = ResponseCache::builder()
        .name("pages")
        .capacity(64 << 20)
        .namespace(&namespace)
        .spawner(|refresh| drop(tokio::spawn(refresh)))
        .build()?;
    let site = Site { pages: pages.clone(), namespace, folder: folder.into(), renders: AtomicU64::new(0), metrics };
    let router = Router::new()
        .route("/", get(list))
        .route("/record/{id}", get(show).put(save))
        .route("/metrics", get(self::metrics))
        .layer(pages.layer())
        .with_state(Arc::new(site));
    let listener = TcpListener::bind(listen.first().map_or("127.0.0.1:0", String::as_str)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(serve(listener, router).await?)
}
