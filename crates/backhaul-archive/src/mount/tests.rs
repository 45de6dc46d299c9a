//! Reading from a mount without a kernel: bytes from anywhere, names from any place on, a cache with bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use backhaul_object::entry::{Body, Content, Entry, Metadata};
use backhaul_object::piece::Piece;
use backhaul_object::{FormatError, Object};

use super::cache::Store;
use super::content::{File, Seek};
use super::folder::{Folder, Names};
use super::*;
use crate::dump::DumpError;
use crate::restore::tests::{Item, Source, dir};

/// Counts what is read.
struct Counting(Source, AtomicUsize);

impl ObjectSource for Counting {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        self.1.fetch_add(ids.len(), Ordering::Relaxed);
        self.0.read(ids)
    }
}

fn store(source: Source) -> (Store, Arc<Counting>) {
    let source = Arc::new(Counting(source, AtomicUsize::new(0)));
    (Store { source: Arc::clone(&source) as _, number: 0, cache: Arc::default() }, source)
}

fn file(content: Content, size: u64) -> Entry {
    let body = Body::File { size, content, link: None };
    Entry { name: b"f".to_vec(), metadata: Metadata::default(), body, extensions: vec![] }
}

/// 700 chunks of different lengths with holes between some, as one file list over others.
fn patchwork(source: &mut Source) -> (Entry, Vec<u8>) {
    let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
    for i in 0..700u32 {
        if i % 50 == 3 {
            pieces.push(Piece::Hole { len: 1_000 + u64::from(i) });
            bytes.resize(bytes.len() + 1_000 + i as usize, 0);
        }
        let chunk: Vec<u8> = (0..100 + i % 7).map(|n| (n * 31 + i) as u8 | 1).collect();
        pieces.push(source.chunk(&chunk));
        bytes.extend_from_slice(&chunk);
    }
    let id = source.flist(&pieces);
    (file(Content::Flist(id), bytes.len() as u64), bytes)
}

#[test]
fn bytes_are_the_same_wherever_a_read_begins_and_ends() {
    let mut source = Source::new();
    let (entry, bytes) = patchwork(&mut source);
    let bundle = source.bundle(&[b"first", b"second"]);
    let (store, _) = store(source);
    let open = File::open(store.clone(), &entry).unwrap();
    let len = bytes.len();
    for (at, want) in
        [(0, len), (0, 1), (len - 1, 5), (len, 1), (99, 200), (5_000, 30_000), (len / 2, 100_000)]
    {
        let end = (at + want).min(len);
        assert_eq!(open.read(at as u64, want as u64).unwrap(), &bytes[at..end], "{at} {want}");
    }
    assert_eq!(open.read(u64::MAX, 10).unwrap(), b"");
    let small = |content, size| File::open(store.clone(), &file(content, size)).unwrap();
    assert_eq!(small(Content::Inline(b"abc".to_vec()), 3).read(1, 9).unwrap(), b"bc");
    assert_eq!(small(Content::Member { bundle, member: 1 }, 6).read(0, 9).unwrap(), b"second");
    assert_eq!(small(Content::Empty, 0).read(0, 9).unwrap(), b"");
}

#[test]
fn data_and_holes_are_found_from_anywhere() {
    let mut source = Source::new();
    let data = source.chunk(b"0123456789");
    let pieces = vec![Piece::Hole { len: 100 }, data, Piece::Hole { len: 50 }];
    let (store, _) = store(source);
    let open = File::open(store.clone(), &file(Content::Chunks(pieces), 160)).unwrap();
    let cases = [
        (0, Seek::Data, Some(100)),
        (0, Seek::Hole, Some(0)),
        (105, Seek::Data, Some(105)),
        (105, Seek::Hole, Some(110)),
        (110, Seek::Data, None),
        (159, Seek::Hole, Some(159)),
        (160, Seek::Hole, None),
    ];
    for (at, what, found) in cases {
        assert_eq!(open.seek(at, what).unwrap(), found, "{at} {what:?}");
    }
    let plain = File::open(store, &file(Content::Inline(b"abc".to_vec()), 3)).unwrap();
    assert_eq!((plain.seek(1, Seek::Data).unwrap(), plain.seek(1, Seek::Hole).unwrap()), (Some(1), Some(3)));
}

#[test]
fn what_lies_about_lengths_is_refused_and_ends() {
    let mut source = Source::new();
    let (entry, bytes) = patchwork(&mut source);
    let Body::File { content, .. } = entry.body else { panic!("a file") };
    let chunk = source.chunk(b"four");
    let id = chunk.id().unwrap();
    let bundle = source.bundle(&[b"x"]);
    let (store, _) = store(source);
    let read =
        |content, size: u64| File::open(store.clone(), &file(content, size)).unwrap().read(0, u64::MAX);
    for size in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
        assert!(matches!(read(content.clone(), size), Err(DumpError::Size { .. })));
    }
    assert!(matches!(read(Content::Chunks(vec![]), 5), Err(DumpError::Size { .. })));
    let wrong = Content::Chunks(vec![Piece::Data { id, len: 5 }]);
    assert!(matches!(read(wrong, 5), Err(DumpError::Format { .. })));
    assert!(matches!(read(Content::Member { bundle, member: 3 }, 1), Err(DumpError::Format { .. })));
    assert!(matches!(read(Content::Member { bundle, member: 0 }, 2), Err(DumpError::Size { .. })));
    let error = read(Content::Flist(id), 4).unwrap_err();
    assert!(matches!(error, DumpError::Format { why: FormatError::Invalid("not a file list"), .. }));
}

#[test]
fn a_failed_read_is_an_error_once_and_may_be_tried_again() {
    let mut source = Source::new();
    let (good, bad) = (source.chunk(b"good"), source.chunk(b"gone"));
    source.gone.insert(bad.id().unwrap());
    let (store, _) = store(source);
    let open = File::open(store, &file(Content::Chunks(vec![good, bad]), 8)).unwrap();
    assert!(
        matches!(open.read(0, 8), Err(DumpError::Transfer(TransferError::NotFound(id))) if Some(id) == bad.id())
    );
    assert_eq!(open.read(0, 4).unwrap(), b"good");
    assert!(open.read(4, 4).is_err());
}

#[test]
fn what_is_held_is_not_read_again_and_what_was_used_longest_ago_goes_first() {
    let mut source = Source::new();
    let chunks: Vec<Piece> = (0..30).map(|i| source.chunk(&vec![i; 4 << 20])).collect();
    let (store, counting) = store(source);
    let ids: Vec<ObjectId> = chunks.iter().filter_map(Piece::id).collect();
    store.get(&ids[..20]).unwrap();
    store.get(&ids[..20]).unwrap();
    assert_eq!(counting.1.load(Ordering::Relaxed), 20);
    for id in &ids[20..] {
        store.one(*id).unwrap();
        store.one(ids[0]).unwrap();
    }
    let before = counting.1.load(Ordering::Relaxed);
    store.one(ids[0]).unwrap();
    assert_eq!(counting.1.load(Ordering::Relaxed), before, "it is used all the time");
    store.one(ids[1]).unwrap();
    assert_eq!(counting.1.load(Ordering::Relaxed), before + 1, "memory is bounded");
}

#[test]
fn many_readers_of_one_object_read_it_once() {
    let mut source = Source::new();
    let (entry, bytes) = patchwork(&mut source);
    let all = source.objects.len();
    let (store, counting) = store(source);
    let open = File::open(store, &entry).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(open.read(0, u64::MAX).unwrap(), bytes));
        }
    });
    assert!(counting.1.load(Ordering::Relaxed) <= all);
}

#[test]
fn every_name_is_listed_once_wherever_the_listing_is_taken_up_again() {
    let mut source = Source::new();
    let one = || Item::File(Content::Inline(b"x".to_vec()), 1, None);
    let many: BTreeMap<Vec<u8>, Item> =
        (0..5_000).map(|i| (format!("a-name-of-some-length-{i:05}").into_bytes(), one())).collect();
    let root = source.tree(dir([(b"many", Item::Dir(many)), (b"small", Item::Dir(dir([(b"x", one())])))]));
    let (store, _) = store(source);
    let top = Names::Node(root);
    let entry = top.find(&store, b"many").unwrap().unwrap();
    let names = Names::of(&entry).unwrap();
    let open = || Folder::open(store.clone(), names.clone());
    // The kernel keeps the first names of a listing: another that is opened later may begin with any place.
    for (room, again) in [(1, false), (7, false), (10_000, false), (7, true), (500, true)] {
        let (mut seen, mut place, mut folder) = (Vec::new(), 0, open());
        loop {
            if again {
                folder = open();
            }
            let (mut left, before, from) = (room, seen.len(), place);
            let mut take = |next, entry: &Entry| {
                if left == 0 {
                    return true;
                }
                left -= 1;
                place = next;
                seen.push(entry.name.clone());
                false
            };
            folder.list(from, &mut take).unwrap();
            if seen.len() == before {
                break;
            }
        }
        assert_eq!(seen.len(), 5_000);
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert!(place > 0);
    }
    let found = names.find(&store, b"a-name-of-some-length-04321").unwrap().unwrap();
    assert_eq!(found.name, b"a-name-of-some-length-04321");
    assert!(names.find(&store, b"a").unwrap().is_none() && names.find(&store, b"z").unwrap().is_none());
    let small = Names::of(&top.find(&store, b"small").unwrap().unwrap()).unwrap();
    assert!(matches!(small, Names::Here(_)), "folded");
    assert!(small.find(&store, b"x").unwrap().is_some());
    assert!(Names::Node(ObjectId([9; 32])).find(&store, b"x").is_err());
}
