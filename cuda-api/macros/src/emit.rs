//! What a chapter becomes: thin code over `wire.rs`, `guest.rs` and `host.rs` of `cuda-api`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Expr, Ident, Result};

use crate::parse::{Arg, Chapter, Class, Kind, Row, factors};

pub fn chapter(c: &Chapter) -> Result<TokenStream> {
    let sends: Vec<&Row> = c
        .rows
        .iter()
        .filter(|r| matches!(r.class, Class::Posted | Class::Sync) && r.over.is_none())
        .collect();
    let rows = sends.iter().map(|r| row(r)).collect::<Result<Vec<_>>>()?;
    let methods = sends.iter().map(|r| host_method(r));
    let arms = sends.iter().map(|r| host_arm(r)).collect::<Result<Vec<_>>>()?;
    let stubs = sends
        .iter()
        .filter(|r| r.custom.is_none() && !r.internal)
        .map(|r| guest_stub(r))
        .collect::<Result<Vec<_>>>()?;
    let infos = c.rows.iter().map(info);
    let exports = c.rows.iter().flat_map(exports);
    let names = sends.iter().map(|r| &r.name);
    let (exports_macro, rows_macro) =
        (format_ident!("__exports_{}", c.name), format_ident!("__rows_{}", c.name));
    let chapter_name = c.name.to_string();
    let chapter = &c.name;
    Ok(quote! {
        /// The rows of this chapter that travel, as types.
        #[allow(non_camel_case_types)]
        pub mod row {
            #[allow(unused_imports)]
            use crate::types::*;
            #[allow(unused_imports)]
            use crate::wire::{Bulk, Fill, Filled};
            #(#rows)*
        }

        /// The host's half of this chapter: what an executor implements. A method that it leaves out refuses the call by name.
        #[allow(non_snake_case, clippy::type_complexity)]
        pub trait Host: crate::host::Base {
            #(#methods)*
        }

        /// Carries out one call of this chapter; `None` if the id belongs to another.
        ///
        /// # Errors
        /// [`crate::Malformed`] where the frame is not what its row says: the session ends.
        #[allow(non_snake_case, unused_variables, clippy::unused_unit, clippy::let_unit_value, clippy::ptr_arg)]
        pub fn dispatch<H: Host>(
            host: &H,
            thread: &mut H::Thread,
            call: u32,
            frame: &mut crate::wire::Reader<'_>,
            reply: &mut Vec<u8>,
        ) -> Option<Result<CUresult, crate::Malformed>> {
            match call {
                #(#arms)*
                _ => None,
            }
        }

        /// The guest's half of this chapter where the row says it all.
        #[allow(non_snake_case, unused_imports, clippy::missing_safety_doc, clippy::unused_unit, clippy::let_unit_value)]
        pub mod guest {
            use crate::types::*;
            use crate::wire::{Bulk, Fill, Filled};
            #(#stubs)*
        }

        /// The rows of this chapter as data.
        pub const CALLS: &[crate::CallInfo] = &[#(#infos),*];
        /// The chapter's name.
        pub const CHAPTER: &str = #chapter_name;

        /// Hands every exported name of the chapter to a macro.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! #exports_macro { ($callback:path) => { $callback! { #chapter; #(#exports)* } }; }

        /// Hands every travelling row of the chapter to a macro.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! #rows_macro { ($callback:path) => { $callback! { #chapter; #(#names)* } }; }
    })
}

/// The fields of the frame.
fn fields(r: &Row) -> Vec<&Arg> {
    match &r.wire {
        Some((ins, _)) => ins.iter().collect(),
        None => r
            .args
            .iter()
            .filter(|a| !matches!(a.kind, Kind::Out(_) | Kind::OptOut(_) | Kind::OutArray(..)))
            .collect(),
    }
}

/// The fields of the reply.
fn outputs(r: &Row) -> Vec<&Arg> {
    match &r.wire {
        Some((_, outs)) => outs.iter().collect(),
        None => r
            .args
            .iter()
            .filter(|a| matches!(a.kind, Kind::Out(_) | Kind::OptOut(_) | Kind::OutArray(..)))
            .collect(),
    }
}

fn in_type(a: &Arg) -> TokenStream {
    match &a.kind {
        Kind::Value(t) | Kind::Handle(t) | Kind::New(t) | Kind::Free(t) => quote!(#t),
        Kind::In(t) => quote!(&'a #t),
        Kind::InArray(t, _) => quote!(&'a [#t]),
        Kind::Bits(..) => quote!(u32),
        Kind::Bytes => quote!(&'a [u8]),
        Kind::CStr => quote!(&'a core::ffi::CStr),
        Kind::DevIn(_) | Kind::DevOut(_) => quote!(CUdeviceptr),
        Kind::Bulk => quote!(Bulk<'a>),
        Kind::Fill => quote!(Fill),
        Kind::Out(_) | Kind::OptOut(_) | Kind::OutArray(..) => quote!(()),
    }
}

fn out_type(a: &Arg) -> TokenStream {
    match &a.kind {
        Kind::OutArray(t, _) => quote!(Vec<#t>),
        Kind::Out(t) | Kind::OptOut(t) | Kind::Value(t) => quote!(#t),
        Kind::Fill => quote!(Filled),
        _ => quote!(()),
    }
}

fn out_types(r: &Row) -> TokenStream {
    let outs: Vec<TokenStream> = outputs(r).iter().map(|a| out_type(a)).collect();
    match outs.len() {
        0 => quote!(()),
        1 => outs[0].clone(),
        _ => quote!((#(#outs),*)),
    }
}

fn row(r: &Row) -> Result<TokenStream> {
    let (name, docs, id) = (&r.name, &r.docs, r.id);
    let ins = fields(r).into_iter().map(in_type).collect::<Vec<_>>();
    let outs = out_types(r);
    let name_text = name.to_string();
    let (posted, may_block) = (r.class == Class::Posted, r.may_block);
    let ranges = fields(r).iter().filter(|a| matches!(a.kind, Kind::DevIn(_) | Kind::DevOut(_))).count();
    let bulk = fields(r).iter().any(|a| matches!(a.kind, Kind::Bulk | Kind::Fill));
    Ok(quote! {
        #(#docs)*
        #[derive(Debug, Clone, Copy)]
        pub struct #name;
        impl crate::Call for #name {
            const ID: u32 = #id;
            const NAME: &'static str = #name_text;
            const POSTED: bool = #posted;
            const MAY_BLOCK: bool = #may_block;
            const DEVICE_RANGES: usize = #ranges;
            const BULK: bool = #bulk;
            type In<'a> = (#(#ins,)*);
            type Out = #outs;
        }
    })
}

/// The type by which a field reaches the executor.
fn host_arg(a: &Arg) -> TokenStream {
    let name = &a.name;
    let ty = match &a.kind {
        Kind::Value(t) | Kind::Handle(t) | Kind::New(t) | Kind::Free(t) => quote!(#t),
        Kind::In(t) => quote!(&#t),
        Kind::InArray(t, _) => quote!(&[#t]),
        Kind::Bits(..) => quote!(u32),
        Kind::Bytes => quote!(&[u8]),
        Kind::CStr => quote!(&core::ffi::CStr),
        Kind::DevIn(_) | Kind::DevOut(_) => quote!(CUdeviceptr),
        Kind::Bulk => quote!(crate::wire::Bulk<'_>),
        Kind::Fill => quote!(crate::wire::Fill),
        Kind::Out(_) | Kind::OptOut(_) | Kind::OutArray(..) => quote!(()),
    };
    quote!(#name: #ty)
}

fn host_method(r: &Row) -> TokenStream {
    let (name, docs) = (&r.name, &r.docs);
    let args = fields(r).into_iter().map(host_arg).collect::<Vec<_>>();
    let names = fields(r).into_iter().map(|a| &a.name).collect::<Vec<_>>();
    let outs = {
        let outs: Vec<TokenStream> = outputs(r)
            .iter()
            .map(|a| match &a.kind {
                Kind::Fill => quote!(crate::wire::Filled),
                _ => out_type(a),
            })
            .collect();
        match outs.len() {
            0 => quote!(()),
            1 => outs[0].clone(),
            _ => quote!((#(#outs),*)),
        }
    };
    let text = name.to_string();
    quote! {
        #(#docs)*
        ///
        /// # Errors
        /// The CUresult that the guest's caller is to see.
        fn #name(&self, thread: &mut Self::Thread, #(#args),*) -> crate::CuResult<#outs> {
            let _ = (thread, #(#names),*);
            Err(self.unsupported(#text))
        }
    }
}

fn product(e: &Expr) -> Result<TokenStream> {
    if let Expr::Call(c) = e {
        let parts = c.args.iter().map(product).collect::<Result<Vec<_>>>()?;
        return Ok(quote!(crate::wire::rows(#(#parts),*)?));
    }
    let parts = factors(e)?.into_iter().map(|f| match f {
        Ok(n) => quote!(crate::wire::Length::bytes(&#n)),
        Err(l) => quote!(#l),
    });
    Ok(quote!(crate::wire::product(&[#(#parts),*])?))
}

fn host_arm(r: &Row) -> Result<TokenStream> {
    let (name, id) = (&r.name, r.id);
    let names = fields(r).into_iter().map(|a| &a.name).collect::<Vec<&Ident>>();
    let mut checks = Vec::new();
    for a in fields(r) {
        let n = &a.name;
        let (len, access) = match &a.kind {
            Kind::DevIn(e) => (product(e)?, quote!(crate::host::Access::Read)),
            Kind::DevOut(e) => (product(e)?, quote!(crate::host::Access::Write)),
            _ => continue,
        };
        checks.push(quote!(host.check_range(#n, #len, #access)?;));
    }
    Ok(quote! {
        #id => Some((|| {
            let (#(#names,)*) = crate::wire::take_all::<<row::#name as crate::Call>::In<'_>>(frame)?;
            let outcome: crate::CuResult<_> = (|| {
                #(#checks)*
                host.#name(thread, #(#names),*)
            })();
            Ok(crate::host::answer(outcome, reply))
        })()),
    })
}

fn c_type(a: &Arg) -> TokenStream {
    match &a.kind {
        Kind::Value(t) | Kind::Handle(t) | Kind::Free(t) => quote!(#t),
        Kind::New(t) | Kind::Out(t) | Kind::OptOut(t) | Kind::OutArray(t, _) => quote!(*mut #t),
        Kind::In(t) | Kind::InArray(t, _) => quote!(*const #t),
        Kind::Bits(..) => quote!(u32),
        Kind::Bytes => quote!(*const u8),
        Kind::CStr => quote!(*const core::ffi::c_char),
        Kind::DevIn(_) | Kind::DevOut(_) => quote!(CUdeviceptr),
        Kind::Bulk => quote!(*const core::ffi::c_void),
        Kind::Fill => quote!(*mut core::ffi::c_void),
    }
}

fn guest_stub(r: &Row) -> Result<TokenStream> {
    let (name, docs) = (&r.name, &r.docs);
    let params = r.args.iter().map(|a| {
        let (n, t) = (&a.name, c_type(a));
        quote!(#n: #t)
    });
    let (mut checks, mut values, mut undo, mut done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // A posted call that is in no stream is synchronous where its memory is the host's.
    let settles = r.class == Class::Posted
        && r.args.iter().any(|a| matches!(a.kind, Kind::DevIn(_) | Kind::DevOut(_)))
        && !r.args.iter().any(|a| matches!(a.kind, Kind::Handle(_)));
    if settles {
        checks.push(quote!(let mut host_memory = false;));
    }
    // A range without bytes proves nothing, and what a single row has for a pitch is the driver's to judge: its answer is waited for.
    let may_doubt =
        r.class == Class::Posted && r.args.iter().any(|a| matches!(a.kind, Kind::DevIn(_) | Kind::DevOut(_)));
    if may_doubt {
        checks.push(quote!(let mut sure = true;));
    }
    // An event is recorded in a stream of its own context: anything else the driver refuses, and its answer is waited for. A stream
    // may wait for any context's event; there the stream comes first.
    let recorded = match handles_of(r)[..] {
        [(event, "CUevent"), (stream, "CUstream")] if r.class == Class::Posted => Some((event, stream)),
        _ => None,
    };
    let may_doubt = may_doubt || recorded.is_some();
    if let Some((event, stream)) = recorded {
        checks.push(quote!(let mut sure = guest.is_of_one_context(#event, #stream);));
        done.push(quote!(guest.recorded(#event, #stream);));
    }
    if let [(_, ""), (event, "CUevent")] = handles_of(r)[..]
        && r.name.to_string().ends_with("RecordEvent")
    {
        done.push(quote!(guest.recorded_in_a_context(#event);));
    }
    for a in &r.args {
        let n = &a.name;
        match &a.kind {
            // Frames have the host's ordinals, which are others where the program sees some of the devices.
            Kind::Value(t) if is_device(n, t) => {
                checks.push(quote!(let #n = guest.host_device(#n)?;));
                values.push(quote!(#n));
            }
            Kind::Value(_) => values.push(quote!(#n)),
            Kind::Handle(t) => {
                let check = quote!(guest.check_handle(#n)?;);
                checks.push(if may_be_null(n, t) { quote!(if !#n.is_null() { #check }) } else { check });
                values.push(quote!(#n));
            }
            Kind::Free(_) => {
                checks.push(quote!(guest.check_handle(#n)?;));
                values.push(quote!(#n));
                done.push(quote!(guest.forget(#n);));
            }
            Kind::New(t) => {
                let id = format_ident!("new_{}", n);
                checks.push(quote!(crate::guest::not_null(#n)?; let #id: #t = guest.new_handle()?;));
                values.push(quote!(#id));
                undo.push(quote!(guest.forget(#id);));
                // SAFETY of the emitted write: the caller gave a pointer to one value, checked above against NULL.
                done.push(quote!(unsafe { #n.write_unaligned(#id) };));
            }
            Kind::In(_) => {
                checks.push(
                    quote!(crate::guest::not_null(#n.cast_mut())?; let #n = unsafe { #n.read_unaligned() };),
                );
                values.push(quote!(&#n));
            }
            Kind::InArray(_, count) => {
                checks.push(quote!(let #n = unsafe { crate::guest::array(#n, crate::wire::Length::bytes(&#count))? };));
                values.push(quote!(#n));
            }
            Kind::CStr => {
                checks.push(quote!(crate::guest::not_null(#n.cast_mut())?; let #n = unsafe { core::ffi::CStr::from_ptr(#n) };));
                values.push(quote!(#n));
            }
            Kind::DevIn(e) | Kind::DevOut(e) => {
                let len = product(e)?;
                // Elements of several bytes are aligned, and rows do not overlap: the driver refuses anything else at once.
                let element: Vec<Expr> = factors(e)?.into_iter().filter_map(|f| f.err()).collect();
                if !element.is_empty() {
                    checks.push(quote!(if #len != 0 { crate::guest::aligned(#n, crate::wire::product(&[#(#element),*])?)?; }));
                }
                if let Expr::Call(c) = e {
                    let parts = c.args.iter().map(product).collect::<Result<Vec<_>>>()?;
                    let apart = quote!(crate::guest::rows_apart(#(#parts,)* crate::wire::product(&[#(#element),*])?)?);
                    checks.push(if may_doubt { quote!(sure &= #apart;) } else { quote!(#apart;) });
                }
                if may_doubt {
                    checks.push(quote!(sure &= #len != 0;));
                }
                let access = if matches!(a.kind, Kind::DevIn(_)) { quote!(Read) } else { quote!(Write) };
                let check = quote!(guest.check_range(#n, #len, crate::host::Access::#access)?);
                checks.push(match (may_doubt, settles) {
                    (false, _) => quote!(#check;),
                    // What another device may do with memory is the driver's to judge.
                    (true, false) => quote!(sure &= !#check.elsewhere;),
                    (true, true) => {
                        quote!(let reach = #check; sure &= !reach.elsewhere; host_memory |= reach.settles;)
                    }
                });
                values.push(quote!(#n));
            }
            Kind::Out(_) => checks.push(quote!(crate::guest::not_null(#n)?;)),
            Kind::OptOut(_) => {}
            Kind::OutArray(_, count) => {
                checks.push(
                    quote!(if crate::wire::Length::bytes(&#count) != 0 { crate::guest::not_null(#n)?; }),
                );
            }
            Kind::Bits(mask, without) => {
                if let Some(without) = without {
                    checks.push(quote!(crate::guest::without_bits(#n, #mask, #without)?;));
                }
                checks.push(quote!(crate::guest::only_bits(#n, #mask)?;));
                values.push(quote!(#n));
            }
            Kind::Bulk | Kind::Fill | Kind::Bytes => {
                return Err(syn::Error::new(
                    n.span(),
                    "`bulk`, `fill` and `bytes` need a hand-written guest half",
                ));
            }
        }
    }
    let outs = outputs(r);
    let out_names: Vec<Ident> = outs.iter().map(|a| format_ident!("out_{}", a.name)).collect();
    let pattern = match out_names.len() {
        0 => quote!(()),
        1 => {
            let n = &out_names[0];
            quote!(#n)
        }
        _ => quote!((#(#out_names),*)),
    };
    for (a, o) in outs.iter().zip(&out_names) {
        let n = &a.name;
        done.push(match &a.kind {
            Kind::OptOut(_) => quote!(if !#n.is_null() { unsafe { #n.write_unaligned(#o) } }),
            Kind::OutArray(_, count) => {
                quote!(unsafe { crate::guest::write_array(#n, crate::wire::Length::bytes(&#count), &#o)? };)
            }
            _ => quote!(unsafe { #n.write_unaligned(#o) };),
        });
    }
    let row = quote!(super::row::#name);
    // Flags are what an executor may have some of and not others.
    let variant = r.args.iter().filter(|a| matches!(a.kind, Kind::Bits(..))).fold(quote!(0u32), |all, a| {
        let n = &a.name;
        quote!(#all | #n)
    });
    let variant =
        if may_doubt { quote!(if sure { #variant } else { crate::guest::IN_DOUBT }) } else { variant };
    let send = match r.class {
        Class::Posted if settles => quote!(if host_memory {
            guest.post_and_settle::<#row>((#(#values,)*))
        } else {
            guest.post::<#row>((#(#values,)*), #variant)
        }),
        Class::Posted => quote!(guest.post::<#row>((#(#values,)*), #variant)),
        _ => quote!(guest.call::<#row>((#(#values,)*))),
    };
    Ok(quote! {
        #(#docs)*
        ///
        /// # Safety
        /// The pointers are what CUDA's documentation asks of this function's caller.
        pub unsafe fn #name<G: crate::guest::Guest>(guest: &G, #(#params),*) -> CUresult {
            crate::guest::finish((|| {
                guest.ready()?;
                #(#checks)*
                // SAFETY of the emitted reads and writes: each pointer was checked against NULL above, and CUDA's contract
                // with the caller gives its extent.
                match #send {
                    Ok(#pattern) => { #(#done)* Ok(()) }
                    Err(error) => { #(#undo)* Err(error) }
                }
            })())
        }
    })
}

/// The live handles that a row takes, with their types.
fn handles_of(r: &Row) -> Vec<(&Ident, &'static str)> {
    let name = |t: &syn::Type| {
        let known = ["CUevent", "CUstream"];
        known.into_iter().find(|k| matches!(t, syn::Type::Path(path) if path.path.is_ident(k))).unwrap_or("")
    };
    r.args
        .iter()
        .filter_map(|a| if let Kind::Handle(t) = &a.kind { Some((&a.name, name(t))) } else { None })
        .collect()
}

/// The argument is a device's ordinal: a CUdevice, or, in rows whose shape is locked, an int called `device`.
fn is_device(name: &Ident, t: &syn::Type) -> bool {
    let is = |wanted: &str| matches!(t, syn::Type::Path(path) if path.path.is_ident(wanted));
    is("CUdevice") || (name == "device" && is("i32"))
}

/// The handle is a context of a copy between contexts, where driver 580 takes NULL: each address says itself where it lies. The shape
/// of such rows is locked.
fn may_be_null(name: &Ident, t: &syn::Type) -> bool {
    let context = matches!(t, syn::Type::Path(path) if path.path.is_ident("CUcontext"));
    context && (name == "dstContext" || name == "srcContext")
}

fn info(r: &Row) -> TokenStream {
    let (name, id, shape) = (r.name.to_string(), r.id, &r.shape);
    let class = match r.class {
        Class::Local => quote!(Local),
        Class::Posted => quote!(Posted),
        Class::Sync => quote!(Sync),
        Class::Refused => quote!(Refused),
    };
    let option = |s: &Option<syn::LitStr>| match s {
        Some(s) => quote!(Some(#s)),
        None => quote!(None),
    };
    let (custom, reason) = (option(&r.custom), option(&r.reason));
    let over = match &r.over {
        Some(o) => {
            let o = o.to_string();
            quote!(Some(#o))
        }
        None => quote!(None),
    };
    let aliases = r.aliases.iter().map(|(a, per_thread)| {
        let a = a.to_string();
        quote!((#a, #per_thread))
    });
    let (internal, may_block) = (r.internal, r.may_block);
    let doc = r
        .docs
        .iter()
        .filter_map(|d| match &d.meta {
            syn::Meta::NameValue(nv) => match &nv.value {
                Expr::Lit(l) => match &l.lit {
                    syn::Lit::Str(s) => Some(s.value().trim().to_string()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
        .collect::<Vec<_>>()
        .join(" ");
    quote! {
        crate::CallInfo {
            id: #id, name: #name, class: crate::Class::#class, custom: #custom, reason: #reason,
            over: #over, aliases: &[#(#aliases),*], internal: #internal, may_block: #may_block, shape: #shape, doc: #doc,
        }
    }
}

/// `half thread name = row (arg: type, …);` for every exported name. `half` says who answers: `local` and `custom` are hand-written
/// (the second ones travel), `generic` is the stub, `refused` nobody.
fn exports(r: &Row) -> Vec<TokenStream> {
    if r.internal {
        return Vec::new();
    }
    let name = &r.name;
    let half = match r.class {
        Class::Refused => quote!(refused),
        Class::Local => quote!(local),
        _ if r.custom.is_some() => quote!(custom),
        _ => quote!(generic),
    };
    let params: Vec<(Ident, TokenStream)> =
        r.args.iter().map(|a: &Arg| (a.name.clone(), c_type(a))).collect();
    let (names, types): (Vec<_>, Vec<_>) = params.into_iter().unzip();
    std::iter::once((name.clone(), false))
        .chain(r.aliases.iter().cloned())
        .map(|(export, per_thread)| {
            let thread = if per_thread { quote!(perthread) } else { quote!(plain) };
            quote!(#half #thread #export = #name (#(#names: #types),*);)
        })
        .collect()
}
