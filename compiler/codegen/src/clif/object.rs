//! The same functions in an object file instead of memory, with constants, the plan and the exported entry.

use super::{Assembler, broken};
use cranelift::module::{DataDescription, DataId, Linkage, Module, default_libcall_names};
use cranelift::object::{ObjectBuilder, ObjectModule, ObjectProduct};
use cranelift::prelude::*;
use ir::Result;

/// What generated code calls; see the crate `artefact`.
const RUN: &str = "compress_artefact_run";

/// Everything but code that goes into an object.
pub struct Image {
    pub constants: Vec<u8>,
    pub plan: Vec<u8>,
    /// Inputs and outputs together.
    pub ports: usize,
    pub workspace: usize,
}

impl Assembler<ObjectModule> {
    /// Code for every machine of this architecture that is not ancient: with x86, SSE 4.2.
    pub fn object(name: &str) -> Result<Self> {
        let mut flags = settings::builder();
        for (k, v) in [("use_colocated_libcalls", "false"), ("is_pic", "true"), ("opt_level", "speed")] {
            flags.set(k, v).map_err(broken)?;
        }
        let mut isa = cranelift::native::builder_with_options(false).map_err(broken)?;
        if cfg!(target_arch = "x86_64") {
            for f in ["has_sse3", "has_ssse3", "has_sse41", "has_sse42"] {
                isa.enable(f).map_err(broken)?;
            }
        }
        let isa = isa.finish(settings::Flags::new(flags)).map_err(broken)?;
        let builder = ObjectBuilder::new(isa, name, default_libcall_names()).map_err(broken)?;
        let mut module = ObjectModule::new(builder);
        let mut sig = module.make_signature();
        sig.params = vec![AbiParam::new(types::I64); 8];
        sig.returns = vec![AbiParam::new(types::I32)];
        let host = module.declare_function(RUN, Linkage::Import, &sig).map_err(broken)?;
        let builder = FunctionBuilderContext::new();
        let (loops, texts, known) = Default::default();
        Ok(Assembler { module, host, loops, texts, known, builder })
    }

    /// The object, with `NAME_run(inputs…, outputs…, workspace)` and `NAME_workspace_bytes()`.
    pub fn finish_object(mut self, name: &str, image: Image) -> Result<ObjectProduct> {
        let sizes = [image.plan.len(), image.constants.len()];
        let constants = self.data("constants", false, 64, |d| d.define(filled(image.constants)))?;
        let plan = self.data("plan", false, 8, |d| d.define(filled(image.plan)))?;
        let state = self.data("state", true, 8, |d| d.define_zeroinit(8))?;
        let code = self.code_table()?;
        let mut cx = self.module.make_context();
        cx.func.signature.params = vec![AbiParam::new(types::I64); image.ports + 1];
        cx.func.signature.returns = vec![AbiParam::new(types::I32)];
        let id = self
            .module
            .declare_function(&format!("{name}_run"), Linkage::Export, &cx.func.signature)
            .map_err(broken)?;
        let mut b = FunctionBuilder::new(&mut cx.func, &mut self.builder);
        let run = self.module.declare_func_in_func(self.host, b.func);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let given = b.block_params(entry).to_vec();
        let bytes = 8 * image.ports.max(1) as u32;
        let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3));
        for (i, &p) in given.iter().take(image.ports).enumerate() {
            b.ins().stack_store(types::I64, p, slot, 8 * i as i32);
        }
        let address = |b: &mut FunctionBuilder, d: DataId| {
            let v = self.module.declare_data_in_func(d, b.func);
            b.ins().symbol_value(types::I64, v)
        };
        let [plan, constants, code, state] = [plan, constants, code, state].map(|d| address(&mut b, d));
        let [len, held] = sizes.map(|n| b.ins().iconst(types::I64, n as i64));
        let pointers = b.ins().stack_addr(types::I64, slot, 0);
        let workspace = given.last().copied().unwrap_or(len);
        let call = b.ins().call(run, &[plan, len, constants, held, code, state, pointers, workspace]);
        let status = b.inst_results(call)[0];
        b.ins().return_(&[status]);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        self.module.define_function(id, &mut cx).map_err(|e| broken(format!("{e:?}")))?;
        self.module.clear_context(&mut cx);
        self.number(&format!("{name}_workspace_bytes"), image.workspace)?;
        Ok(self.module.finish())
    }

    /// An exported function that returns a number.
    fn number(&mut self, name: &str, x: usize) -> Result<()> {
        let mut cx = self.module.make_context();
        cx.func.signature.returns = vec![AbiParam::new(types::I64)];
        let id = self.module.declare_function(name, Linkage::Export, &cx.func.signature).map_err(broken)?;
        let mut b = FunctionBuilder::new(&mut cx.func, &mut self.builder);
        let entry = b.create_block();
        b.switch_to_block(entry);
        let x = b.ins().iconst(types::I64, x as i64);
        b.ins().return_(&[x]);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        self.module.define_function(id, &mut cx).map_err(|e| broken(format!("{e:?}")))?;
        Ok(())
    }

    fn data(
        &mut self,
        name: &str,
        writable: bool,
        align: u64,
        fill: impl FnOnce(&mut DataDescription),
    ) -> Result<DataId> {
        let id = self.module.declare_data(name, Linkage::Local, writable, false).map_err(broken)?;
        let mut d = DataDescription::new();
        d.set_align(align);
        fill(&mut d);
        self.module.define_data(id, &d).map_err(broken)?;
        Ok(id)
    }

    /// Addresses of all loops.
    fn code_table(&mut self) -> Result<DataId> {
        let id = self.module.declare_data("code", Linkage::Local, false, false).map_err(broken)?;
        let all = self.loops.clone();
        let mut d = DataDescription::new();
        d.set_align(8);
        d.define(vec![0; 8 * all.len().max(1)].into());
        for (i, f) in all.into_iter().enumerate() {
            let f = self.module.declare_func_in_data(f, &mut d);
            d.write_function_addr(8 * i as u32, f);
        }
        self.module.define_data(id, &d).map_err(broken)?;
        Ok(id)
    }
}

/// Empty data has no address.
fn filled(mut bytes: Vec<u8>) -> Box<[u8]> {
    if bytes.is_empty() {
        bytes.push(0);
    }
    bytes.into()
}
