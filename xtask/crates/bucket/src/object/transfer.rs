//! Transfers big files to and from a bucket in parts, with bounded memory.

use crate::object::diagnose;
use crate::object::diagnose::{Doing, explain};
use crate::object::{AT_ONCE, Bucket, PART};
use futures_util::{StreamExt, stream};
use gangplank_bundle::release::{Progress, sync_dir};
use gangplank_model::error::{Kind, Result, WithHint, failed};
use gangplank_model::release::digest::Hasher;
use object_store::{Attributes, ObjectStore, ObjectStoreExt, PutOptions, WriteMultipart};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

impl Bucket<'_> {
    /// Uploads a file, in parts if it is big. The object appears as a whole or not at all.
    pub fn upload(&self, key: &str, from: &Path, progress: Progress) -> Result<()> {
        self.wait(None, self.send(key, from, progress))
    }

    async fn send(&self, key: &str, from: &Path, progress: Progress<'_>) -> Result<()> {
        self.send_with(key, from, Attributes::new(), progress).await
    }

    pub(super) async fn send_with(
        &self,
        key: &str,
        from: &Path,
        attributes: Attributes,
        progress: Progress<'_>,
    ) -> Result<()> {
        let unreadable = || format!("cannot read {}", from.display());
        let hint = || "check the disk".to_owned();
        let mut file = File::open(from).with_hint(Kind::Failed, unreadable, hint)?;
        let total = file.metadata().with_hint(Kind::Failed, unreadable, hint)?.len();
        let mut next = || -> Result<Vec<u8>> {
            let mut part = Vec::with_capacity(PART);
            (&mut file).take(PART as u64).read_to_end(&mut part).with_hint(Kind::Failed, unreadable, hint)?;
            Ok(part)
        };
        let doing = Doing::Writing(key);
        if total <= PART as u64 {
            let options = PutOptions { attributes, ..PutOptions::default() };
            self.explained(doing, self.store.put_opts(&self.key(key), next()?.into(), options).await)?;
            progress(total, total);
            return Ok(());
        }
        let upload = self.explained(doing, self.store.put_multipart_opts(&self.key(key), attributes.into()).await)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut sent = 0;
        let parts = async {
            loop {
                // One fewer, because the part just read is in memory too.
                upload.wait_for_capacity(AT_ONCE - 1).await.map_err(|e| explain(&self.server, doing, &e))?;
                self.not_interrupted()?;
                let part = next()?;
                if part.is_empty() {
                    return Ok::<_, anyhow::Error>(());
                }
                sent += part.len() as u64;
                upload.put(part.into());
                progress(sent, total);
            }
        };
        match parts.await {
            Ok(()) => self.explained(doing, upload.finish().await).map(drop),
            Err(error) => {
                // Uncompleted parts cost money until they are aborted.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    fn not_interrupted(&self) -> Result<()> {
        if self.ctx.interrupted() {
            return failed(diagnose::STOPPED).hint("run the same command again").err();
        }
        Ok(())
    }

    /// Downloads an object of a known size; returns its SHA-256.
    pub fn download(&self, key: &str, bytes: u64, to: &Path, progress: Progress) -> Result<String> {
        self.wait(None, self.receive(key, bytes, to, progress))
    }

    async fn receive(&self, key: &str, bytes: u64, to: &Path, progress: Progress<'_>) -> Result<String> {
        let unwritable = || format!("cannot write {}", to.display());
        let hint = || "check free space and permissions: `df -h .`".to_owned();
        let mut file = File::create(to).with_hint(Kind::Failed, unwritable, hint)?;
        let (object, step) = (self.key(key), PART as u64);
        let ranges = (0..bytes.div_ceil(step)).map(|n| n * step..((n + 1) * step).min(bytes));
        let mut parts = stream::iter(ranges).map(|range| self.store.get_range(&object, range)).buffered(AT_ONCE);
        let (mut hasher, mut done) = (Hasher::default(), 0);
        while let Some(part) = parts.next().await {
            self.not_interrupted()?;
            let part = self.explained(Doing::Reading(key), part)?;
            hasher.update(&part);
            file.write_all(&part).with_hint(Kind::Failed, unwritable, hint)?;
            done += part.len() as u64;
            progress(done, bytes);
        }
        file.sync_all().and_then(|()| to.parent().map_or(Ok(()), sync_dir)).with_hint(
            Kind::Failed,
            unwritable,
            hint,
        )?;
        Ok(hasher.hex())
    }
}
