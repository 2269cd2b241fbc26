//! The unit itself: whether there is one, its configuration, and its instructions.
//!
//! The compiler uses no tiles of its own accord, so that each piece of assembly here finds the configuration as the one before
//! left it.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::dot_x86::Vnni;
use crate::packed::LINE;

/// Lines of the largest tile.
pub(super) const TILE_LINES: usize = 16;

/// Proof that the machine has AMX for integers, and the system lets us use it, besides what [`Vnni`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Amx(Vnni);

/// Bits of CPUID's leaf 7, in EDX: tiles, and their products of bytes.
const FEATURES: u32 = 1 << 24 | 1 << 25;
/// Parts of a thread's state that the system must save: the configuration, and the tiles.
const STATE: u64 = 1 << 17 | 1 << 18;

impl Amx {
    pub(crate) fn detect(proof: Vnni) -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| is_there() && is_permitted()).then_some(Self(proof))
    }

    pub(super) fn dots(self) -> Vnni {
        self.0
    }
}

fn is_there() -> bool {
    /// XGETBV is enabled: a bit of leaf 1, in ECX.
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: the system has enabled it, as was looked up.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the feature that it is compiled for is what the second condition asks for.
    __cpuid(0).eax >= 7
        && __cpuid(1).ecx & OSXSAVE != 0
        && __cpuid_count(7, 0).edx & FEATURES == FEATURES
        && unsafe { saved() } & STATE == STATE
}

/// Asks the system for tiles, which take 8 KB of every thread's state that uses them.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILES: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers. It changes what later instructions of this process may do, and how large an alternate
    // stack for signals must be.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) == 0 }
}

/// Tells that other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The operand of `LDTILECFG`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    lines: [u8; 16],
}

/// The unit of this thread, configured for tiles of some rows. Dropping it clears the tiles, so that nobody has to save them.
pub(super) struct Tiles {
    height: usize,
    /// A configuration is its thread's.
    _of_thread: PhantomData<*const ()>,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever has this has the instruction.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Tiles {
    /// The height of tiles for `rows` rows, which are cut into as few tiles as can be, all of one height.
    pub(super) fn height_for(rows: usize) -> usize {
        rows.div_ceil(rows.div_ceil(TILE_LINES).max(1)).max(1)
    }

    /// Tiles of a height.
    pub(super) fn new(_: Amx, height: usize) -> Self {
        let mut configuration =
            Configuration { palette: 1, start: 0, reserved: [0; 14], line_bytes: [0; 16], lines: [0; 16] };
        configuration.line_bytes[..8].fill(LINE as u16);
        configuration.lines[..4].fill(height as u8); // sums and activations
        configuration.lines[4..8].fill(TILE_LINES as u8); // weights
        // SAFETY: the machine has the instruction, by the token, and the configuration is one that it takes.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self { height, _of_thread: PhantomData }
    }

    /// Rows of a tile.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Multiplies a group's weights, sixteen lines, with the activations of one tile of rows, 64 bytes each: `[16][16]` sums, by
    /// rows.
    ///
    /// # Safety
    /// There must be as many bytes at each place, and this thread's unit must be configured as `self` was at last.
    #[inline(always)]
    pub(super) unsafe fn multiply(&self, weights: *const u8, x: *const u8, sums: *mut i32) {
        // SAFETY: by the caller.
        unsafe {
            asm!(
                "tileloadd tmm4, [{weights} + {line}]",
                "tileloadd tmm2, [{x} + {line}]",
                "tilezero tmm0",
                "tdpbsud tmm0, tmm2, tmm4",
                "tilestored [{sums} + {line}], tmm0",
                weights = in(reg) weights,
                x = in(reg) x,
                sums = in(reg) sums,
                line = in(reg) LINE,
                out("tmm0") _, out("tmm2") _, out("tmm4") _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// As [`Tiles::multiply`], with the weights of two blocks, and `[2][16][16]` sums.
    ///
    /// # Safety
    /// There must be as many bytes at each place, and this thread's unit must be configured as `self` was at last.
    #[inline(always)]
    pub(super) unsafe fn multiply_two(&self, weights: [*const u8; 2], x: *const u8, sums: *mut i32) {
        // SAFETY: by the caller.
        unsafe {
            asm!(
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm2, [{x} + {line}]",
                "tilezero tmm0",
                "tdpbsud tmm0, tmm2, tmm4",
                "tileloadd tmm5, [{second} + {line}]",
                "tilezero tmm1",
                "tdpbsud tmm1, tmm2, tmm5",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                first = in(reg) weights[0],
                second = in(reg) weights[1],
                x = in(reg) x,
                sums = in(reg) sums,
                line = in(reg) LINE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm4") _, out("tmm5") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
