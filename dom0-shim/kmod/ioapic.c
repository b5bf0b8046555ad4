// SPDX-License-Identifier: GPL-2.0
/* The PC's I/O APIC (Intel 82093AA data sheet, order 290566): 24 pins at 0xfec00000. Its messages go to the virtual
 * local APICs as MSIs through Socle; Socle reports the end of level-triggered ones.
 */
#include "socle_kvm.h"

#define IOAPIC_BASE    0xfec00000ull
#define IOAPIC_LENGTH  0x100
#define IOAPIC_VERSION (0x11 | (KVM_IOAPIC_NUM_PINS - 1) << 16)

#define REG_SELECT  0x00
#define REG_WINDOW  0x10
#define REG_ID	    0
#define REG_VER	    1
#define REG_ARB	    2
#define REG_ENTRIES 0x10

#define ENTRY_VECTOR	 0xffull
#define ENTRY_MODE_SHIFT 8
#define ENTRY_LOGICAL	 BIT_ULL(11)
#define ENTRY_BUSY	 BIT_ULL(12)
#define ENTRY_REMOTE_IRR BIT_ULL(14)
#define ENTRY_LEVEL	 BIT_ULL(15)
#define ENTRY_MASKED	 BIT_ULL(16)
#define ENTRY_READ_ONLY	 (ENTRY_BUSY | ENTRY_REMOTE_IRR)
#define MODE_LOWEST	 1
#define MODE_EXTINT	 7

/* Sends the pin's message; as sk_irq_set(). */
static int service(struct sk_vm *vm, int pin)
{
	u64 *entry = &vm->ioapic.state.redirtbl[pin].bits;
	u32 mode = (*entry >> ENTRY_MODE_SHIFT) & 7;
	u32 address = (*entry >> 56) << 12;
	u32 data = (*entry & ENTRY_VECTOR) | mode << 8 | 1 << 14;
	long taken;

	if (*entry & ENTRY_MASKED || (*entry & ENTRY_LEVEL && *entry & ENTRY_REMOTE_IRR))
		return -1;
	if (mode == MODE_EXTINT)
		return -1; /* the PIC's output reaches the processor by LINT0 */
	if (*entry & ENTRY_LOGICAL)
		address |= 1 << 2;
	if (mode == MODE_LOWEST)
		address |= 1 << 3; /* redirection hint */
	if (*entry & ENTRY_LEVEL)
		data |= 1 << 15;
	taken = sk_irq_send_msi(vm, address, 0, data);
	if (taken > 0 && *entry & ENTRY_LEVEL)
		*entry |= ENTRY_REMOTE_IRR;
	return taken < 0 ? -1 : taken;
}

int sk_ioapic_set_irq(struct sk_vm *vm, int pin, int source, int level)
{
	struct sk_ioapic *ioapic = &vm->ioapic;
	u32 mask = 1u << pin;
	unsigned long flags;
	bool was;
	int r = 1;

	spin_lock_irqsave(&ioapic->lock, flags);
	if (level)
		__set_bit(source, &ioapic->lines[pin]);
	else
		__clear_bit(source, &ioapic->lines[pin]);
	was = ioapic->state.irr & mask;
	if (!ioapic->lines[pin]) {
		ioapic->state.irr &= ~mask;
	} else {
		ioapic->state.irr |= mask;
		if (was && !(ioapic->state.redirtbl[pin].bits & ENTRY_LEVEL))
			r = 0; /* an edge that is already there */
		else
			r = service(vm, pin);
	}
	spin_unlock_irqrestore(&ioapic->lock, flags);
	return r;
}

/* A line that is still up interrupts again at once. */
void sk_ioapic_eoi(struct sk_vm *vm, u8 vector)
{
	struct sk_ioapic *ioapic = &vm->ioapic;
	unsigned long flags;
	int pin;

	spin_lock_irqsave(&ioapic->lock, flags);
	for (pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++) {
		u64 *entry = &ioapic->state.redirtbl[pin].bits;

		if ((*entry & ENTRY_VECTOR) != vector)
			continue;
		spin_unlock_irqrestore(&ioapic->lock, flags);
		sk_irqfd_ended(vm, KVM_IRQCHIP_IOAPIC, pin);
		spin_lock_irqsave(&ioapic->lock, flags);
		if (!(*entry & ENTRY_LEVEL))
			continue;
		*entry &= ~ENTRY_REMOTE_IRR;
		if (ioapic->state.irr & (1u << pin))
			service(vm, pin);
	}
	spin_unlock_irqrestore(&ioapic->lock, flags);
}

/* ---- registers -------------------------------------------------------------------------------- */

static u32 window_read(const struct kvm_ioapic_state *s)
{
	u32 pin = (s->ioregsel - REG_ENTRIES) / 2;

	switch (s->ioregsel) {
	case REG_VER:
		return IOAPIC_VERSION;
	case REG_ID:
	case REG_ARB:
		return (s->id & 0xf) << 24;
	}
	if (s->ioregsel < REG_ENTRIES || pin >= KVM_IOAPIC_NUM_PINS)
		return ~0u;
	return s->redirtbl[pin].bits >> (s->ioregsel & 1 ? 32 : 0);
}

/* Linux and Xen expect that a switch to edge clears remote IRR: it stands in for an EOI register. */
static void entry_write(struct sk_vm *vm, u32 pin, bool high, u32 value)
{
	struct kvm_ioapic_state *s = &vm->ioapic.state;
	u64 *entry = &s->redirtbl[pin].bits;
	u64 keep = *entry & ENTRY_READ_ONLY;

	if (high)
		*entry = (*entry & 0xffffffff) | (u64)value << 32;
	else
		*entry = (*entry & ~0xffffffffull) | value;
	*entry = (*entry & ~ENTRY_READ_ONLY) | keep;
	if (!(*entry & ENTRY_LEVEL))
		*entry &= ~ENTRY_REMOTE_IRR;
	else if (s->irr & (1u << pin))
		service(vm, pin);
}

static void window_write(struct sk_vm *vm, u32 value)
{
	struct kvm_ioapic_state *s = &vm->ioapic.state;
	u32 pin = (s->ioregsel - REG_ENTRIES) / 2;

	if (s->ioregsel == REG_ID)
		s->id = (value >> 24) & 0xf;
	else if (s->ioregsel >= REG_ENTRIES && pin < KVM_IOAPIC_NUM_PINS)
		entry_write(vm, pin, s->ioregsel & 1, value);
}

static void register_write(struct sk_vm *vm, u32 offset, u32 value)
{
	if (offset == REG_SELECT)
		vm->ioapic.state.ioregsel = value & 0xff;
	else if (offset == REG_WINDOW)
		window_write(vm, value);
}

static u32 register_read(const struct kvm_ioapic_state *s, u32 offset)
{
	if (offset == REG_SELECT)
		return s->ioregsel;
	return offset == REG_WINDOW ? window_read(s) : 0;
}

/* Registers are 32 bits wide; other widths are cut or filled with zeros. */
bool sk_ioapic_mmio(struct sk_vm *vm, u64 gpa, bool write, u32 len, void *data)
{
	struct sk_ioapic *ioapic = &vm->ioapic;
	u32 offset = (gpa - IOAPIC_BASE) & 0xf0;
	unsigned long flags;
	u64 value = 0;

	if (gpa < IOAPIC_BASE || gpa - IOAPIC_BASE >= IOAPIC_LENGTH || len > 8)
		return false;
	spin_lock_irqsave(&ioapic->lock, flags);
	if (write) {
		memcpy(&value, data, len);
		register_write(vm, offset, value);
	} else {
		value = register_read(&ioapic->state, offset);
		memcpy(data, &value, len);
	}
	spin_unlock_irqrestore(&ioapic->lock, flags);
	return true;
}

/* ---- state ------------------------------------------------------------------------------------ */

void sk_ioapic_get(struct sk_vm *vm, struct kvm_ioapic_state *state)
{
	spin_lock_irq(&vm->ioapic.lock);
	*state = vm->ioapic.state;
	spin_unlock_irq(&vm->ioapic.lock);
}

void sk_ioapic_set(struct sk_vm *vm, const struct kvm_ioapic_state *state)
{
	struct sk_ioapic *ioapic = &vm->ioapic;
	int pin;

	spin_lock_irq(&ioapic->lock);
	ioapic->state = *state;
	ioapic->state.base_address = IOAPIC_BASE;
	ioapic->state.ioregsel &= 0xff;
	ioapic->state.irr &= (1u << KVM_IOAPIC_NUM_PINS) - 1;
	for (pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
		if (ioapic->state.irr & (1u << pin))
			service(vm, pin);
	spin_unlock_irq(&ioapic->lock);
}

void sk_ioapic_init(struct sk_vm *vm)
{
	int pin;

	spin_lock_init(&vm->ioapic.lock);
	vm->ioapic.state.base_address = IOAPIC_BASE;
	for (pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
		vm->ioapic.state.redirtbl[pin].bits = ENTRY_MASKED;
}
