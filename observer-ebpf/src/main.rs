//! The programs that run in the kernel, a file a concern. They record and count; what anything means is decided in user space.
#![no_std]
#![no_main]

mod dispatch;
mod emit;
mod file;
mod import;
mod kernel;
mod process;
mod rules;
mod signal;
mod socket;
mod stream;
mod tables;

/// The probe and map helpers the kernel offers are for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
