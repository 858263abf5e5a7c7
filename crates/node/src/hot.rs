//! The raw entry points of the hot path: `submit`, `collect`, `receive`, `take`, and the bell that wakes JavaScript.
//!
//! They are Node-API functions without a wrapper, because a class method costs ten times as much to call. The
//! state is found through each function's data pointer. Every entry catches panics, and borrows memory of
//! JavaScript for the length of the call only: nothing here, and no other thread, keeps a pointer to an arena.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "calls into Node-API; the argument of each block stands at `entry`, `bytes_of` and `Pinned`"
)]

use crate::boundary::{Boundary, Collected, Submitted};
use crate::inbox::Bell;
use napi::sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Once;

/// A typed array that belongs to the package's own code and is never given to anybody: it is kept alive by a strong
/// reference and can therefore be neither collected nor transferred, so its memory stays where it is until the
/// environment ends, after which no entry is called.
struct Pinned {
    data: *mut u8,
    bytes: usize,
}

/// One environment's boundary with the memory that is always used.
pub(crate) struct Crossing {
    pub(crate) boundary: RefCell<Boundary>,
    batch: Pinned,
    state: Pinned,
}

/// The words of the state array, which `src/batch.ts` reads.
mod word {
    pub(super) const NEEDED: usize = 0;
    pub(super) const REFUSED: usize = 1;
    pub(super) const CONGESTED: usize = 2;
    pub(super) const LINKS: usize = 3;
    pub(super) const WORDS: usize = 32;
}

/// Has the allocator give freed memory of more than 2 MiB back at once, unless the environment says otherwise. Half-read
/// frames of many MiB that are given up would be kept for a second beside those that come in their place.
pub(crate) fn give_large_memory_back() {
    /// `mi_option_arena_max_object_size` of mimalloc 3, which the bindings do not name, in KiB.
    const LARGEST_KEPT: libmimalloc_sys::mi_option_t = 45;
    static ONCE: Once = Once::new();
    // SAFETY: it writes one plain number of the allocator's settings, and no other thread does: the addon is loaded
    // once a process, and environments that load it again find it done. Other threads may read it meanwhile, as they
    // do while mimalloc itself fills its settings in; either value is good.
    ONCE.call_once(|| unsafe { libmimalloc_sys::mi_option_set_default(LARGEST_KEPT, 2_048) });
}

/// What mimalloc 3.3.2 has inside and its bindings do not name: the first field of each, and two functions.
#[cfg(unix)]
mod mimalloc_parts {
    #[repr(C)]
    pub(super) struct Theap {
        pub(super) thread: *mut Thread,
    }

    #[repr(C)]
    pub(super) struct Thread {
        pub(super) id: usize,
    }

    unsafe extern "C" {
        /// The heap of the thread that loaded the library.
        pub(super) static mut theap_main: Theap;
        /// The heap of the calling thread, made if there is none.
        pub(super) fn mi_theap_get_default() -> *mut Theap;
        /// What a thread has that was never seen.
        pub(super) fn _mi_theap_empty_get() -> *mut Theap;
        pub(super) fn _mi_theap_default_set(theap: *mut Theap);
    }
}

/// Has the allocator take the thread that loaded the addon for one like all others. To be called by that thread.
///
/// mimalloc 3.3 keeps that thread's id for good, and takes apart its heap when it ends. A later thread with the same id,
/// which is the next one as a rule, is given that heap and crashes: microsoft/mimalloc#1287, mended in 3.4, which the
/// bindings do not have yet. For Node that is a worker thread that loads the package before the main thread does.
/// On Windows nothing is done about it: the parts have other names there, as mimalloc is compiled as C++.
pub(crate) fn forget_first_thread() {
    /// No thread has it, and none of the values with a meaning of their own is near.
    #[cfg(unix)]
    const NOBODY: usize = usize::MAX & !0b11;
    #[cfg(unix)]
    // SAFETY: the version is the one whose parts these are, which Cargo.toml pins. The heap is the static one only on
    // the thread that loaded the library, and only once: from then on that thread has no heap until it next asks for
    // memory, like a new one, and no thread takes itself for the first. The word is written while others may read it, to
    // compare it with their own ids, which neither value is. The few blocks of the static heap stay valid. Its pages keep
    // the id of the thread, so that one, or a later one with the same id, of which there is one at a time, frees them
    // there without looking further; nobody takes memory from that heap any more, and what others free stays with it.
    unsafe {
        use mimalloc_parts::{_mi_theap_default_set, _mi_theap_empty_get, mi_theap_get_default, theap_main};
        let first = &raw mut theap_main;
        if libmimalloc_sys::mi_version() != 30_302 || mi_theap_get_default() != first {
            return;
        }
        (&raw mut (*(*first).thread).id).write_volatile(NOBODY);
        _mi_theap_default_set(_mi_theap_empty_get());
    }
}

type Callback = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

struct TsfnBell(sys::napi_threadsafe_function);

// SAFETY: Node-API documents a thread-safe function as callable from any thread while it exists; the gate's lock is
// held around each call, and the cleanup hook takes the bell away under that lock before Node frees it.
unsafe impl Send for TsfnBell {}

impl Bell for TsfnBell {
    fn ring(&self) {
        // SAFETY: as above. A full or closing queue means that JavaScript comes, or never will.
        unsafe {
            sys::napi_call_threadsafe_function(
                self.0,
                null_mut(),
                sys::ThreadsafeFunctionCallMode::nonblocking,
            );
        }
    }
}

impl Crossing {
    /// Pins the arrays, hangs up the bell and puts the entry points on `target`. `None` if an argument is not what it
    /// should be.
    pub(crate) fn open(
        env: sys::napi_env,
        [batch, state, wake, target]: [sys::napi_value; 4],
    ) -> Option<(Rc<Self>, Holder)> {
        let boundary = Boundary::new();
        let inbox = Arc::clone(&boundary.inbox);
        let batch = pin(env, batch)?;
        let state = pin(env, state).filter(|state| state.bytes >= word::WORDS.saturating_mul(4))?;
        let crossing = Rc::new(Self { boundary: RefCell::new(boundary), batch, state });
        let bell = thread_safe_function(env, wake)?;
        inbox.hang(Box::new(TsfnBell(bell)));
        let data = Rc::into_raw(Rc::clone(&crossing)).cast_mut().cast::<c_void>();
        // Hooks run in the reverse order of their registration, so this one comes before Node's own for the
        // thread-safe function, which was made above.
        // SAFETY: `data` is one strong count, which `end` gives back.
        unsafe { sys::napi_add_env_cleanup_hook(env, Some(end), data) };
        let entries: [(&CStr, Callback); 5] = [
            (c"submit", submit),
            (c"exchange", exchange),
            (c"collect", collect),
            (c"receive", receive),
            (c"take", take),
        ];
        for (name, entry) in entries {
            // SAFETY: the name is NUL-terminated, and `data` lives until the environment ends.
            unsafe {
                let mut function = null_mut();
                let length = isize::try_from(name.count_bytes()).ok()?;
                sys::napi_create_function(env, name.as_ptr(), length, Some(entry), data, &raw mut function);
                sys::napi_set_named_property(env, target, name.as_ptr(), function);
            }
        }
        Some((crossing, Holder { env, bell }))
    }
}

impl Crossing {
    /// Writes what a submission told, besides whether there is something to collect.
    fn tell(&self, told: &Submitted) {
        self.state.set(word::REFUSED, told.refused);
        let room = word::WORDS - word::LINKS;
        let congested = told.congested.iter().take(room);
        self.state.set(word::CONGESTED, u32::try_from(congested.len()).unwrap_or_default());
        for (index, link) in congested.enumerate() {
            self.state.set(word::LINKS + index, u32::from(*link));
        }
    }
}

/// Keeps the process alive while something is waited for. Used on JavaScript's thread only.
pub(crate) struct Holder {
    env: sys::napi_env,
    bell: sys::napi_threadsafe_function,
}

impl Holder {
    pub(crate) fn hold(&self, hold: bool) {
        // SAFETY: called by a method of an object of this environment, so both still exist.
        unsafe {
            if hold {
                sys::napi_ref_threadsafe_function(self.env, self.bell);
            } else {
                sys::napi_unref_threadsafe_function(self.env, self.bell);
            }
        }
    }
}

/// The environment ends: closes the gate, then everything that was open.
unsafe extern "C" fn end(data: *mut c_void) {
    // SAFETY: the strong count `Crossing::open` put into `data`, given back once: a hook runs once.
    let crossing = unsafe { Rc::from_raw(data.cast_const().cast::<Crossing>()) };
    let closed = catch_unwind(AssertUnwindSafe(|| {
        if let Ok(mut boundary) = crossing.boundary.try_borrow_mut() {
            boundary.close_all();
        }
    }));
    drop(closed);
}

fn pin(env: sys::napi_env, array: sys::napi_value) -> Option<Pinned> {
    let (data, bytes) = raw_bytes(env, array)?;
    let mut reference = null_mut();
    // SAFETY: `array` is a live handle. The reference is never deleted: the array lives as long as the environment.
    let status = unsafe { sys::napi_create_reference(env, array, 1, &raw mut reference) };
    (status == sys::Status::napi_ok).then_some(Pinned { data, bytes })
}

fn thread_safe_function(env: sys::napi_env, wake: sys::napi_value) -> Option<sys::napi_threadsafe_function> {
    let mut function = null_mut();
    // SAFETY: the handles are live; the queue holds at most one call, because the gate rings only once.
    unsafe {
        let mut name = null_mut();
        sys::napi_create_string_utf8(env, c"elbus".as_ptr(), 5, &raw mut name);
        let status = sys::napi_create_threadsafe_function(
            env,
            wake,
            null_mut(),
            name,
            0,
            1,
            null_mut(),
            None,
            null_mut(),
            Some(woken),
            &raw mut function,
        );
        if status != sys::Status::napi_ok {
            return None;
        }
        sys::napi_unref_threadsafe_function(env, function);
    }
    Some(function)
}

/// The bell rang: calls JavaScript. What it throws is an uncaught exception, as from any callback; the drain loop
/// catches what handlers throw, so nothing is expected here.
unsafe extern "C" fn woken(env: sys::napi_env, callback: sys::napi_value, _: *mut c_void, _: *mut c_void) {
    if env.is_null() || callback.is_null() {
        return;
    }
    // SAFETY: Node calls this on JavaScript's thread with a scope open.
    unsafe {
        let (mut this, mut result) = (null_mut(), null_mut());
        sys::napi_get_undefined(env, &raw mut this);
        let status = sys::napi_call_function(env, this, callback, 0, std::ptr::null(), &raw mut result);
        if status == sys::Status::napi_pending_exception {
            let mut error = null_mut();
            sys::napi_get_and_clear_last_exception(env, &raw mut error);
            sys::napi_fatal_exception(env, error);
        }
    }
}

/// Where a `Uint8Array` lies now. A detached one has no bytes.
fn raw_bytes(env: sys::napi_env, array: sys::napi_value) -> Option<(*mut u8, usize)> {
    let (mut kind, mut length, mut data) = (0, 0, null_mut());
    // SAFETY: `array` is a handle of the running call; a value of another type makes the status differ.
    let status = unsafe {
        sys::napi_get_typedarray_info(
            env,
            array,
            &raw mut kind,
            &raw mut length,
            &raw mut data,
            null_mut(),
            null_mut(),
        )
    };
    let usable = status == sys::Status::napi_ok && (length == 0 || !data.is_null());
    let width = match kind {
        sys::TypedarrayType::uint8_array => 1,
        sys::TypedarrayType::uint32_array => 4,
        _ => return None,
    };
    usable.then_some((data.cast::<u8>(), length.saturating_mul(width)))
}

/// The memory of an array for the length of one entry.
///
/// SAFETY, for callers: JavaScript does not run before the entry returns, so nobody else touches, detaches or collects
/// the array; an entry asks for each array once, so no two slices overlap.
unsafe fn bytes_of<'a>(env: sys::napi_env, array: sys::napi_value) -> &'a mut [u8] {
    match raw_bytes(env, array) {
        Some((data, length)) if length > 0 => unsafe { std::slice::from_raw_parts_mut(data, length) },
        _ => &mut [],
    }
}

impl Pinned {
    /// SAFETY, for callers: as for `bytes_of`.
    unsafe fn bytes<'a>(&self) -> &'a mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.data, self.bytes) }
    }

    fn set(&self, index: usize, value: u32) {
        // SAFETY: as for `bytes_of`; the slice ends with this statement.
        if let Some(word) = unsafe { self.bytes() }.chunks_exact_mut(4).nth(index) {
            word.copy_from_slice(&value.to_ne_bytes());
        }
    }
}

/// What all entries have in common: the arguments, the boundary, no panic across the border.
///
/// SAFETY, for callers: `env` and `info` are those Node gave to the entry, whose data pointer is the `Crossing` that
/// `open` put there and `end` keeps alive as long as JavaScript can call.
unsafe fn entry<const N: usize>(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    run: impl FnOnce(&Crossing, &mut Boundary, [sys::napi_value; N]) -> sys::napi_value,
) -> sys::napi_value {
    let mut arguments = [null_mut(); N];
    let mut count = N;
    let mut data = null_mut();
    unsafe {
        sys::napi_get_cb_info(env, info, &raw mut count, arguments.as_mut_ptr(), null_mut(), &raw mut data);
    }
    let crossing = data.cast_const().cast::<Crossing>();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let crossing = unsafe { crossing.as_ref() }?;
        let mut boundary = crossing.boundary.try_borrow_mut().ok()?;
        Some(run(crossing, &mut boundary, arguments))
    }));
    result.ok().flatten().unwrap_or_else(|| {
        unsafe { sys::napi_throw_error(env, c"ERR_BUS_INTERNAL".as_ptr(), c"the addon failed".as_ptr()) };
        null_mut()
    })
}

fn number(env: sys::napi_env, value: sys::napi_value) -> u32 {
    let mut number = 0;
    // SAFETY: a handle of the running call; another type leaves 0.
    unsafe { sys::napi_get_value_uint32(env, value, &raw mut number) };
    number
}

fn js_number(env: sys::napi_env, number: usize) -> sys::napi_value {
    let mut value = null_mut();
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    // SAFETY: makes a handle in the scope of the running call.
    unsafe { sys::napi_create_uint32(env, number, &raw mut value) };
    value
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `submit(bytes, external)`: carries out the first `bytes` of the batch; returns 1 if there is something to collect.
unsafe extern "C" fn submit(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: an entry; the batch, the state and `external` are different arrays.
    unsafe {
        entry::<2>(env, info, |crossing, boundary, [length, external]| {
            let batch = crossing.batch.bytes().get(..size(number(env, length))).unwrap_or_default();
            let told = boundary.submit(batch, bytes_of(env, external));
            crossing.tell(&told);
            js_number(env, usize::from(told.pending))
        })
    }
}

/// `exchange(bytes, arena, from)`: `submit` of a batch without a payload beside it and, if there is something to collect,
/// `collect`, in one call.
unsafe extern "C" fn exchange(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: an entry; the batch, the state and the arena are different arrays, and the batch is done with before the
    // arena is asked for.
    unsafe {
        entry::<3>(env, info, |crossing, boundary, [length, arena, from]| {
            let batch = crossing.batch.bytes().get(..size(number(env, length))).unwrap_or_default();
            let told = boundary.submit(batch, &[]);
            crossing.tell(&told);
            let from = size(number(env, from));
            let collected = if told.pending {
                boundary.collect(bytes_of(env, arena), from)
            } else {
                Collected { end: from, needed: 0 }
            };
            crossing.state.set(word::NEEDED, u32::try_from(collected.needed).unwrap_or(u32::MAX));
            js_number(env, collected.end)
        })
    }
}

/// `collect(arena, from)`: fills the arena from byte `from` on; returns where it ends now. The first word of the state
/// says how much room the next record needs, 0 if there is none.
unsafe extern "C" fn collect(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: an entry; the state and the arena are different arrays.
    unsafe {
        entry::<2>(env, info, |crossing, boundary, [arena, from]| {
            let collected = boundary.collect(bytes_of(env, arena), size(number(env, from)));
            crossing.state.set(word::NEEDED, u32::try_from(collected.needed).unwrap_or(u32::MAX));
            js_number(env, collected.end)
        })
    }
}

/// `receive(link, chunk, bytes)`: takes what a socket read; returns 1, or 0 if it could not be taken.
unsafe extern "C" fn receive(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: an entry.
    unsafe {
        entry::<3>(env, info, |_, boundary, [link, chunk, length]| {
            let chunk = bytes_of(env, chunk).get(..size(number(env, length))).unwrap_or_default();
            let taken = u16::try_from(number(env, link)).is_ok_and(|link| boundary.receive(link, chunk));
            js_number(env, usize::from(taken))
        })
    }
}

/// `take(link)`: what a socket has to write, as a new `Buffer`; undefined if that is nothing.
unsafe extern "C" fn take(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: an entry; the bytes are copied before the codec goes on.
    unsafe {
        entry::<1>(env, info, |_, boundary, [link]| {
            let mut value = null_mut();
            let codec = u16::try_from(number(env, link)).ok().and_then(|link| boundary.output(link));
            match codec {
                Some(codec) if !codec.output().is_empty() => {
                    let bytes = codec.output();
                    let from = bytes.as_ptr().cast();
                    sys::napi_create_buffer_copy(env, bytes.len(), from, null_mut(), &raw mut value);
                    codec.written();
                }
                _ => {
                    sys::napi_get_undefined(env, &raw mut value);
                }
            }
            value
        })
    }
}
