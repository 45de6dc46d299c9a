//! Files of a folder, in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backhaul_archive::backup::joints::Joints;
use backhaul_archive::backup::{
    BackupProgress, BackupRequest, Patches, VaultParameters, dry_run, excludes::Excludes,
};
use backhaul_object::bundle::BundleBuilder;
use backhaul_object::chunker::Chunker;
use backhaul_object::descriptor::{Descriptor, INLINE_WRITTEN};
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Compressed, Kind, Object, ObjectId, Proof};
use backhaul_tests::trees;
use bytes::Bytes;

/// A content and its name.
pub struct Named {
    pub id: ObjectId,
    pub proof: Proof,
    pub content: Bytes,
}

/// What is backed up.
pub struct Sample {
    folder: PathBuf,
    paths: Vec<PathBuf>,
    bytes: u64,
    pub key: VaultKey,
    pub chunker: Chunker,
    /// Files too large for a bundle.
    big: Vec<Bytes>,
    /// What goes into bundles.
    members: Vec<Named>,
    chunks: Vec<Named>,
}

impl Sample {
    /// The first files of a folder, by path, as far as there is room.
    pub fn of(folder: &Path, most: u64) -> Self {
        let folder = folder.canonicalize().unwrap();
        let descriptor = Self::descriptor();
        let mut paths = trees::files(&folder);
        paths.retain(|path| path.symlink_metadata().unwrap().is_file());
        let (mut small, mut big, mut bytes, mut taken) = (Vec::new(), Vec::new(), 0, 0);
        for path in &paths {
            let content = Bytes::from(std::fs::read(path).unwrap());
            if bytes + content.len() as u64 > most {
                break;
            }
            bytes += content.len() as u64;
            taken += 1;
            match content.len() {
                ..=INLINE_WRITTEN => {}
                len if len <= descriptor.member_max as usize => small.push(content),
                _ => big.push(content),
            }
        }
        paths.truncate(taken);
        let key = VaultKey::new([7; 32]);
        let chunker = Chunker::new(&descriptor, &key.chunker_key());
        let mut sample = Self { folder, paths, bytes, key, chunker, big, members: vec![], chunks: vec![] };
        sample.members = sample.named(small);
        sample.chunks = sample.named(sample.cut());
        sample
    }

    fn named(&self, contents: Vec<Bytes>) -> Vec<Named> {
        let key = self.key.id_key();
        let name = |content: Bytes| {
            let (id, proof) = identify_content(&key, &content);
            Named { id, proof, content }
        };
        contents.into_iter().map(name).collect()
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn descriptor() -> Descriptor {
        Descriptor::managed(VaultId([1; 16]))
    }

    /// Lists the whole folder and looks at everything in it.
    pub fn walk(&self) -> u64 {
        let request = BackupRequest {
            paths: vec![self.folder.clone()],
            exclude: Excludes::default(),
            skip: Vec::new(),
            one_file_system: false,
            joints: Joints::default(),
            state: None,
            now: &|| 0,
            progress: Arc::new(BackupProgress::default()),
        };
        let parameters = VaultParameters {
            descriptor: Self::descriptor(),
            id_key: self.key.id_key(),
            chunker_key: self.key.chunker_key(),
            generation: [1; 16],
            patches: Patches::Refused,
        };
        dry_run(&request, &parameters).unwrap().files_new
    }

    /// Reads the files once more.
    pub fn read(&self) -> u64 {
        self.paths.iter().map(|path| std::fs::read(path).unwrap().len() as u64).sum()
    }

    /// Cuts the large files into chunks.
    pub fn cut(&self) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        for file in &self.big {
            let mut at = 0;
            while at < file.len() {
                let cut = self.chunker.cut(&file[at..file.len().min(at + self.chunker.max())]);
                chunks.push(file.slice(at..at + cut));
                at += cut;
            }
        }
        chunks
    }

    /// Everything that the server is asked about.
    pub fn contents(&self) -> impl Iterator<Item = &Named> {
        self.members.iter().chain(&self.chunks)
    }

    /// Small contents in bundles.
    pub fn bundles(&self) -> Vec<Object> {
        let target = Self::descriptor().bundle_target as usize;
        let (mut objects, mut bundle) = (Vec::new(), BundleBuilder::default());
        for Named { id, proof, content } in &self.members {
            bundle.push(*id, *proof, content);
            if bundle.is_full(target) {
                objects.push(std::mem::take(&mut bundle).finish());
            }
        }
        if !bundle.is_empty() {
            objects.push(bundle.finish());
        }
        objects
    }

    /// Compresses what is sent.
    pub fn compress(&self, bundles: &[Object], packer: &mut Packer) -> Vec<Compressed> {
        let key = self.key.id_key();
        let bundles = bundles.iter().map(|bundle| {
            let (id, proof) = bundle.identify(&key);
            (id, proof, bundle.clone())
        });
        let chunks = self.chunks.iter().map(|Named { id, proof, content }| {
            let payload = content.clone();
            (*id, *proof, Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload })
        });
        let named = bundles.chain(chunks);
        named.map(|(id, proof, object)| object.compress_as(id, proof, packer).unwrap()).collect()
    }
}
