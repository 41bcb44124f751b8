import { KVM_IRQ_ROUTING_IRQCHIP } from '../ffi/kvm/common.ts';
import { KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE } from '../ffi/kvm/x86.ts';
import type { KvmVm } from './kvm.ts';

const IOAPIC_PINS = 24;
const ISA_IRQS = 16;
const TIMER_IRQ = 0;
const CASCADE_IRQ = 2;

/**
 * Routes of a PC: ISA interrupts reach both controllers, the rest the IOAPIC alone. The timer, which takes the
 * place of the cascade, stands at pin 2 of the IOAPIC, as the MADT says.
 */
export function setPcRouting(vm: KvmVm): void {
  const route = (gsi: number, chip: number, pin: number) => ({
    gsi,
    type: KVM_IRQ_ROUTING_IRQCHIP,
    words: [chip, pin],
  });
  const routes = [];
  for (let gsi = 0; gsi < IOAPIC_PINS; gsi++) {
    if (gsi === CASCADE_IRQ) continue;
    if (gsi < 8) routes.push(route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    else if (gsi < ISA_IRQS) routes.push(route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    routes.push(route(gsi, KVM_IRQCHIP_IOAPIC, gsi === TIMER_IRQ ? CASCADE_IRQ : gsi));
  }
  vm.setRouting(routes);
}
