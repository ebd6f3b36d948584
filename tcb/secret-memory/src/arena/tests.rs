use std::alloc::{Layout, alloc_zeroed, dealloc};

use proptest::prelude::*;

use super::*;

/// An arena over ordinary memory.
struct Rig {
    arena: Arena,
    layout: Layout,
}

impl Rig {
    fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, ALIGN).unwrap();
        // SAFETY: zeroed memory of this layout, owned by the rig until it is dropped.
        let arena = unsafe { Arena::new(NonNull::new(alloc_zeroed(layout)).unwrap(), len) };
        Self { arena, layout }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the rig owns the memory, and no test holds a slice of it meanwhile.
        unsafe { std::slice::from_raw_parts(self.arena.base.as_ptr(), self.arena.len) }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.arena.base.as_ptr(), self.layout) }
    }
}

fn fill(block: NonNull<u8>, len: usize, mark: u8) {
    // SAFETY: tests fill blocks that they hold, up to their size.
    unsafe { block.write_bytes(mark, len) }
}

fn holds(block: NonNull<u8>, len: usize, mark: u8) -> bool {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(block.as_ptr(), len) }.iter().all(|b| *b == mark)
}

#[test]
fn every_size_has_the_smallest_class_that_holds_it() {
    for size in (0..5_000).chain([65_536, 65_537, 1 << 20, (16 << 20) - 1, 16 << 20]) {
        let class = class_of(size).unwrap();
        assert!(size_of_class(class) >= size, "{size}");
        assert!(size_of_class(class).is_multiple_of(ALIGN), "{size}");
        if class > 0 {
            assert!(size_of_class(class - 1) < size.max(1), "{size} fits a smaller class");
        }
    }
    assert_eq!(class_of((16 << 20) + 1), None);
    assert_eq!(class_of(usize::MAX), None);
    assert_eq!(size_of_class(CLASSES), 0);
}

#[test]
fn a_freed_block_is_wiped_and_comes_back() {
    let mut rig = Rig::new(4_096);
    let first = rig.arena.allocate(100).unwrap();
    fill(first, 100, 0xa5);
    assert!(rig.bytes().contains(&0xa5));
    // SAFETY: allocated above, used no more.
    unsafe { rig.arena.free(first) };
    assert!(!rig.bytes().contains(&0xa5), "the key is gone from memory");
    let touched = rig.arena.touched();
    assert_eq!(rig.arena.allocate(97), Some(first));
    assert_eq!(rig.arena.touched(), touched, "no new page for a size that was freed");
}

#[test]
fn shrinking_wipes_the_rest_and_growing_moves() {
    let mut rig = Rig::new(4_096);
    let block = rig.arena.allocate(64).unwrap();
    fill(block, 64, 7);
    // SAFETY: allocated above; each call hands the block on.
    let grown = unsafe {
        let shrunk = rig.arena.reallocate(block, 10).unwrap();
        assert_eq!(shrunk, block);
        assert!(holds(shrunk, 10, 7) && holds(shrunk.add(10), 54, 0));
        rig.arena.reallocate(shrunk, 1_000).unwrap()
    };
    assert_ne!(grown, block);
    assert!(holds(grown, 10, 7));
    assert_eq!(rig.bytes().iter().filter(|b| **b == 7).count(), 10, "no copy stays behind");
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let mut rig = Rig::new(1_024);
    let large = rig.arena.allocate(512).unwrap();
    while rig.arena.allocate(16).is_some() {}
    assert_eq!(rig.arena.allocate(16), None);
    // SAFETY: allocated above, used no more.
    unsafe { rig.arena.free(large) };
    assert_eq!(rig.arena.allocate(16), Some(large), "a larger free block serves");
    assert_eq!(rig.arena.allocate(usize::MAX), None);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Free(usize),
    Resize(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..300_usize, 0..9_000_usize];
    let step = prop_oneof![
        size.clone().prop_map(Step::Allocate),
        any::<usize>().prop_map(Step::Free),
        (any::<usize>(), size).prop_map(|(at, size)| Step::Resize(at, size)),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Blocks never overlap, keep what is written to them, and leave nothing behind.
    #[test]
    fn blocks_are_their_holders_alone(steps in steps()) {
        let mut rig = Rig::new(128 * 1_024);
        let mut held: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
        let mut mark = 0_u8;
        for step in steps {
            mark = mark % 250 + 1;
            match step {
                Step::Allocate(size) => {
                    if let Some(block) = rig.arena.allocate(size) {
                        prop_assert_eq!(block.as_ptr() as usize % ALIGN, 0);
                        prop_assert!(holds(block, size, 0), "a new block is zero");
                        fill(block, size, mark);
                        held.push((block, size, mark));
                    }
                }
                Step::Free(at) if !held.is_empty() => {
                    let (block, ..) = held.swap_remove(at % held.len());
                    // SAFETY: taken from the held blocks, used no more.
                    unsafe { rig.arena.free(block) };
                }
                Step::Resize(at, size) if !held.is_empty() => {
                    let (block, old, own) = held.swap_remove(at % held.len());
                    // SAFETY: taken from the held blocks; put back as what it became.
                    let new = unsafe { rig.arena.reallocate(block, size) };
                    let (block, size) = new.map_or((block, old), |new| (new, size));
                    prop_assert!(holds(block, size.min(old), own));
                    fill(block, size, own);
                    held.push((block, size, own));
                }
                _ => {}
            }
            for (block, size, own) in &held {
                prop_assert!(holds(*block, *size, *own));
            }
            let total: usize = held.iter().map(|(_, size, _)| *size).sum();
            prop_assert_eq!(rig.arena.in_use(), total);
        }
        let mut headers = 0;
        for (block, ..) in held.drain(..) {
            headers += 1;
            // SAFETY: held until now, used no more.
            unsafe { rig.arena.free(block) };
        }
        prop_assert!(rig.arena.touched() >= headers * HEADER);
        prop_assert_eq!(rig.arena.in_use(), 0);
    }
}
