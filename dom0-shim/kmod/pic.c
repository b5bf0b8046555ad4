// SPDX-License-Identifier: GPL-2.0
/* The PC's pair of 8259A interrupt controllers (Intel 8259A data sheet, order 231468). The slave's output is the
 * master's line 2; the master's output is the boot vCPU's LINT0, which Socle turns into SOCLE_EXIT_EXTINT
 * when the guest can take it.
 */
#include "socle_kvm.h"

#define NO_IRQ	     8 /* as a priority: none */
#define CASCADE	     2
#define ELCR_MASK_0 0xf8 /* IRQ 0, 1, 2 are always edge-triggered, and 8 and 13 */
#define ELCR_MASK_1 0xde

#define ICW1	     0x10
#define ICW1_ICW4    0x01
#define OCW3	     0x08

static void chip_set_line(struct kvm_pic_state *chip, int pin, bool level, bool *coalesced)
{
	u8 mask = 1 << pin;

	*coalesced = false;
	if (!level) {
		chip->last_irr &= ~mask;
		if (chip->elcr & mask)
			chip->irr &= ~mask;
		return;
	}
	if (chip->elcr & mask || !(chip->last_irr & mask)) {
		*coalesced = chip->irr & mask;
		chip->irr |= mask;
	}
	chip->last_irr |= mask;
}

/* The highest priority of the requests in mask, 0 the best; NO_IRQ if there are none */
static int best_priority(const struct kvm_pic_state *chip, u8 mask)
{
	int priority = 0;

	if (!mask)
		return NO_IRQ;
	while (!(mask & (1 << ((priority + chip->priority_add) & 7))))
		priority++;
	return priority;
}

/* The request that the chip would give now, or -1 */
static int chip_request(const struct kvm_pic_state *chip, bool master)
{
	u8 in_service = chip->isr;
	int priority = best_priority(chip, chip->irr & ~chip->imr);

	if (priority == NO_IRQ)
		return -1;
	if (chip->special_mask)
		in_service &= ~chip->imr;
	if (chip->special_fully_nested_mode && master)
		in_service &= ~(1 << CASCADE);
	if (priority >= best_priority(chip, in_service))
		return -1;
	return (priority + chip->priority_add) & 7;
}

/* Carries the slave's output to the master. The slave's line is edge-triggered there: it drops and rises again
 * while the slave has a request.
 */
static bool pair_output(struct sk_pic *pic)
{
	bool unused;

	chip_set_line(&pic->chip[0], CASCADE, false, &unused);
	if (chip_request(&pic->chip[1], false) >= 0)
		chip_set_line(&pic->chip[0], CASCADE, true, &unused);
	else
		pic->chip[0].irr &= ~(1 << CASCADE);
	return chip_request(&pic->chip[0], true) >= 0;
}

static void signal_output(struct sk_vm *vm)
{
	struct sk_vcpu *vcpu = smp_load_acquire(&vm->boot_vcpu);

	if (vcpu)
		hc_signal(vcpu->handle,
			  vm->pic.output ? SOCLE_SIGNAL_EXTINT : SOCLE_SIGNAL_EXTINT_OFF);
}

static void update(struct sk_vm *vm)
{
	bool output = pair_output(&vm->pic);

	if (output == vm->pic.output)
		return;
	vm->pic.output = output;
	signal_output(vm);
}

void sk_pic_refresh(struct sk_vm *vm)
{
	unsigned long flags;

	spin_lock_irqsave(&vm->pic.lock, flags);
	vm->pic.output = pair_output(&vm->pic);
	if (vm->pic.output)
		signal_output(vm);
	spin_unlock_irqrestore(&vm->pic.lock, flags);
}

int sk_pic_set_irq(struct sk_vm *vm, int pin, int source, int level)
{
	struct sk_pic *pic = &vm->pic;
	struct kvm_pic_state *chip = &pic->chip[pin >> 3];
	unsigned long flags;
	bool coalesced, masked;

	spin_lock_irqsave(&pic->lock, flags);
	if (level)
		__set_bit(source, &pic->lines[pin]);
	else
		__clear_bit(source, &pic->lines[pin]);
	chip_set_line(chip, pin & 7, pic->lines[pin], &coalesced);
	masked = chip->imr & (1 << (pin & 7));
	update(vm);
	spin_unlock_irqrestore(&pic->lock, flags);
	return masked ? -1 : !coalesced;
}

/* Tells of the ends, which may change the lines. */
static void unlock(struct sk_vm *vm, unsigned long irq_flags)
{
	struct sk_pic *pic = &vm->pic;
	unsigned long ended = pic->ended;
	unsigned int line;

	pic->ended = 0;
	spin_unlock_irqrestore(&pic->lock, irq_flags);
	for_each_set_bit(line, &ended, 16)
		sk_irqfd_ended(vm, line >> 3, line & 7);
}

/* ---- acknowledge and end of interrupt ----------------------------------------------------------- */

static void end_of_interrupt(struct sk_pic *pic, int n, int irq, bool rotate)
{
	struct kvm_pic_state *chip = &pic->chip[n];

	chip->isr &= ~(1 << irq);
	pic->ended |= 1ul << (n * 8 + irq);
	if (rotate)
		chip->priority_add = (irq + 1) & 7;
}

static void take(struct sk_pic *pic, int n, int irq)
{
	struct kvm_pic_state *chip = &pic->chip[n];

	if (chip->auto_eoi)
		end_of_interrupt(pic, n, irq, chip->rotate_on_auto_eoi);
	else
		chip->isr |= 1 << irq;
	if (!(chip->elcr & (1 << irq)))
		chip->irr &= ~(1 << irq);
}

/* The processor's acknowledge cycle: line 7 is given where the request has gone (data sheet, "spurious"). */
static int acknowledge(struct sk_pic *pic, int *irq)
{
	*irq = chip_request(&pic->chip[0], true);
	if (*irq < 0)
		return pic->chip[0].irq_base + 7;
	take(pic, 0, *irq);
	if (*irq != CASCADE)
		return pic->chip[0].irq_base + *irq;
	*irq = chip_request(&pic->chip[1], false);
	if (*irq < 0)
		return pic->chip[1].irq_base + 7;
	take(pic, 1, *irq);
	*irq += 8;
	return pic->chip[1].irq_base + *irq - 8;
}

int sk_pic_acknowledge(struct sk_vm *vm)
{
	struct sk_pic *pic = &vm->pic;
	unsigned long flags;
	int vector = -1, irq = -1;

	spin_lock_irqsave(&pic->lock, flags);
	if (pair_output(pic))
		vector = acknowledge(pic, &irq);
	pic->output = pair_output(pic);
	signal_output(vm); /* also where it is still high: Socle asks once per signal */
	unlock(vm, flags);
	if (irq == 0)
		sk_pit_taken(vm);
	return vector;
}

/* ---- ports -------------------------------------------------------------------------------------- */

/* Initialization command word 1: level-triggered requests stay, the rest is reset. */
static void chip_reset(struct kvm_pic_state *chip, u8 icw1)
{
	chip->init4 = icw1 & ICW1_ICW4;
	chip->init_state = 1;
	chip->last_irr = 0;
	chip->irr &= chip->elcr;
	chip->imr = 0;
	chip->isr = 0;
	chip->priority_add = 0;
	chip->special_mask = 0;
	chip->read_reg_select = 0;
	if (!chip->init4) {
		chip->special_fully_nested_mode = 0;
		chip->auto_eoi = 0;
	}
}

static void write_ocw2(struct sk_pic *pic, int n, u8 val)
{
	struct kvm_pic_state *chip = &pic->chip[n];
	int command = val >> 5;
	int irq = val & 7;
	int priority;

	switch (command) {
	case 0: /* rotation in automatic EOI mode */
	case 4:
		chip->rotate_on_auto_eoi = command >> 2;
		break;
	case 1: /* non-specific EOI */
	case 5:
		priority = best_priority(chip, chip->isr);
		if (priority != NO_IRQ)
			end_of_interrupt(pic, n, (priority + chip->priority_add) & 7, command == 5);
		break;
	case 3: /* specific EOI */
	case 7:
		end_of_interrupt(pic, n, irq, command == 7);
		break;
	case 6:
		chip->priority_add = (irq + 1) & 7;
		break;
	}
}

static void write_ocw3(struct kvm_pic_state *chip, u8 val)
{
	if (val & 0x04)
		chip->poll = 1;
	if (val & 0x02)
		chip->read_reg_select = val & 1;
	if (val & 0x40)
		chip->special_mask = (val >> 5) & 1;
}

static void write_data(struct kvm_pic_state *chip, u8 val)
{
	switch (chip->init_state) {
	case 0:
		chip->imr = val;
		break;
	case 1:
		chip->irq_base = val & 0xf8;
		chip->init_state = 2;
		break;
	case 2:
		chip->init_state = chip->init4 ? 3 : 0;
		break;
	default:
		chip->special_fully_nested_mode = (val >> 4) & 1;
		chip->auto_eoi = (val >> 1) & 1;
		chip->init_state = 0;
	}
}

static void chip_write(struct sk_pic *pic, int n, int a0, u8 val)
{
	struct kvm_pic_state *chip = &pic->chip[n];

	if (a0)
		write_data(chip, val);
	else if (val & ICW1)
		chip_reset(chip, val);
	else if (val & OCW3)
		write_ocw3(chip, val);
	else
		write_ocw2(pic, n, val);
}

/* The poll command: the read is the acknowledge. */
static u8 chip_poll(struct sk_pic *pic, int n)
{
	struct kvm_pic_state *chip = &pic->chip[n];
	int irq = chip_request(chip, n == 0);

	chip->poll = 0;
	if (irq < 0)
		return 0x07;
	take(pic, n, irq);
	if (n == 1)
		end_of_interrupt(pic, 0, CASCADE, false);
	return 0x80 | irq;
}

static u8 chip_read(struct sk_pic *pic, int n, int a0)
{
	const struct kvm_pic_state *chip = &pic->chip[n];

	if (chip->poll)
		return chip_poll(pic, n);
	if (a0)
		return chip->imr;
	return chip->read_reg_select ? chip->isr : chip->irr;
}

bool sk_pic_io(struct sk_vm *vm, u16 port, bool in, u8 *data)
{
	struct sk_pic *pic = &vm->pic;
	bool elcr = (port & 0xfffe) == 0x4d0;
	int n = elcr ? port & 1 : port >> 7 & 1;
	unsigned long flags;

	if (!elcr && (port & 0xff7e) != 0x20)
		return false;
	spin_lock_irqsave(&pic->lock, flags);
	if (elcr && in)
		*data = pic->chip[n].elcr;
	else if (elcr)
		pic->chip[n].elcr = *data & pic->chip[n].elcr_mask;
	else if (in)
		*data = chip_read(pic, n, port & 1);
	else
		chip_write(pic, n, port & 1, *data);
	update(vm);
	unlock(vm, flags);
	return true;
}

/* ---- state -------------------------------------------------------------------------------------- */

void sk_pic_get(struct sk_vm *vm, int chip, struct kvm_pic_state *state)
{
	spin_lock_irq(&vm->pic.lock);
	*state = vm->pic.chip[chip];
	spin_unlock_irq(&vm->pic.lock);
}

void sk_pic_set(struct sk_vm *vm, int chip, const struct kvm_pic_state *state)
{
	struct sk_pic *pic = &vm->pic;

	spin_lock_irq(&pic->lock);
	pic->chip[chip] = *state;
	pic->chip[chip].elcr_mask = chip ? ELCR_MASK_1 : ELCR_MASK_0;
	pic->chip[chip].priority_add &= 7;
	pic->output = !pair_output(pic); /* so that update() tells Socle in any case */
	update(vm);
	spin_unlock_irq(&pic->lock);
}

void sk_pic_init(struct sk_vm *vm)
{
	spin_lock_init(&vm->pic.lock);
	vm->pic.chip[0].elcr_mask = ELCR_MASK_0;
	vm->pic.chip[1].elcr_mask = ELCR_MASK_1;
}
