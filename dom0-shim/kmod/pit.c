// SPDX-License-Identifier: GPL-2.0
/* The PC's 8254 interval timer (Intel 8254 data sheet, order 231164) at ports 0x40-0x43, and port 0x61 where asked.
 * Channel 0 drives GSI 0 from an hrtimer. A tick that finds the last one not yet taken from the PIC is given
 * when it is, so that a guest that counts ticks keeps time.
 */
#include "socle_kvm.h"

#include <linux/math64.h>

#define PIT_HZ	       1193182
#define MIN_PERIOD_NS  200000 /* hrtimers are not throttled: a guest could flood dom0 */
#define MAX_PENDING    1000
#define REFRESH_NS     15085 /* half the period of port 0x61's refresh bit */

/* rw_mode, and the state of a two-byte access */
enum { RW_LOW = 1, RW_HIGH, RW_WORD_LOW, RW_WORD_HIGH };

#define SPEAKER_GATE 0x01
#define SPEAKER_DATA 0x02

static void tick(struct sk_pit *pit)
{
	int r = sk_irq_set(pit->vm, 0, SK_SOURCE_PIT, 1);
	unsigned long flags;

	sk_irq_set(pit->vm, 0, SK_SOURCE_PIT, 0);
	if (r)
		return;
	spin_lock_irqsave(&pit->lock, flags);
	if (pit->pending < MAX_PENDING && !pit->discard)
		pit->pending++;
	spin_unlock_irqrestore(&pit->lock, flags);
}

void sk_pit_taken(struct sk_vm *vm)
{
	struct sk_pit *pit = READ_ONCE(vm->pit);
	unsigned long flags;
	bool again = false;

	if (!pit)
		return;
	spin_lock_irqsave(&pit->lock, flags);
	if (pit->pending) {
		pit->pending--;
		again = true;
	}
	spin_unlock_irqrestore(&pit->lock, flags);
	if (again)
		tick(pit);
}

/* A timer that was started again or stopped while this ran shows under the lock. */
static enum hrtimer_restart timer_fires(struct hrtimer *timer)
{
	struct sk_pit *pit = container_of(timer, struct sk_pit, timer);
	enum hrtimer_restart next = HRTIMER_NORESTART;
	unsigned long flags;
	u64 missed;

	spin_lock_irqsave(&pit->lock, flags);
	if (!pit->armed || hrtimer_is_queued(timer)) {
		spin_unlock_irqrestore(&pit->lock, flags);
		return HRTIMER_NORESTART;
	}
	if (pit->period) {
		missed = hrtimer_forward_now(timer, ns_to_ktime(pit->period)) - 1;
		if (!pit->discard)
			pit->pending = min_t(u64, pit->pending + missed, MAX_PENDING);
		next = HRTIMER_RESTART;
	} else {
		pit->armed = false;
	}
	spin_unlock_irqrestore(&pit->lock, flags);
	tick(pit);
	return next;
}

/* ---- channels; all under pit->lock ------------------------------------------------------------ */

static u64 channel_elapsed(const struct kvm_pit_channel_state *c)
{
	s64 ns = ktime_to_ns(ktime_get()) - c->count_load_time;

	return mul_u64_u32_div(max_t(s64, ns, 0), PIT_HZ, NSEC_PER_SEC);
}

static u32 channel_period(const struct kvm_pit_channel_state *c)
{
	return c->count ? c->count : 0x10000;
}

static u32 modulo(u64 value, u32 by)
{
	u32 rest;

	div_u64_rem(value, by, &rest);
	return rest;
}

static u16 channel_count(const struct kvm_pit_channel_state *c)
{
	u64 elapsed = channel_elapsed(c);
	u32 period = channel_period(c);

	switch (c->mode) {
	case 2:
		return period - modulo(elapsed, period);
	case 3:
		return period - modulo(2 * elapsed, period);
	default:
		return period - elapsed;
	}
}

static bool channel_output(const struct kvm_pit_channel_state *c)
{
	u64 elapsed = channel_elapsed(c);
	u32 period = channel_period(c);

	switch (c->mode) {
	case 1:
		return elapsed < period;
	case 2:
		return elapsed && modulo(elapsed, period) == 0;
	case 3:
		return modulo(elapsed, period) < (period + 1) / 2;
	case 4:
	case 5:
		return elapsed == period;
	default:
		return elapsed >= period;
	}
}

static void timer_stop(struct sk_pit *pit)
{
	pit->armed = false;
	pit->pending = 0;
	hrtimer_try_to_cancel(&pit->timer);
}

static void timer_start(struct sk_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[0];
	s64 ns = mul_u64_u32_div(channel_period(c), NSEC_PER_SEC, PIT_HZ);

	timer_stop(pit);
	if (pit->state.flags & KVM_PIT_FLAGS_HPET_LEGACY || c->mode > 4)
		return;
	pit->period = c->mode == 2 || c->mode == 3 ? max_t(s64, ns, MIN_PERIOD_NS) : 0;
	pit->armed = true;
	hrtimer_start(&pit->timer, ns_to_ktime(c->count_load_time + ns), HRTIMER_MODE_ABS);
}

static void channel_load(struct sk_pit *pit, int n, u16 value)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[n];

	c->count = value ? value : 0x10000;
	c->count_load_time = ktime_to_ns(ktime_get());
	if (n == 0)
		timer_start(pit);
}

static void latch_count(struct kvm_pit_channel_state *c)
{
	if (c->count_latched)
		return;
	c->latched_count = channel_count(c);
	c->count_latched = c->rw_mode;
}

static void latch_status(struct kvm_pit_channel_state *c)
{
	if (c->status_latched)
		return;
	c->status = channel_output(c) << 7 | c->rw_mode << 4 | (c->mode & 7) << 1 | c->bcd;
	c->status_latched = 1;
}

/* ---- ports ------------------------------------------------------------------------------------ */

static void read_back(struct sk_pit *pit, u8 val)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (!(val & (2 << i)))
			continue;
		if (!(val & 0x20))
			latch_count(&pit->state.channels[i]);
		if (!(val & 0x10))
			latch_status(&pit->state.channels[i]);
	}
}

static void control_write(struct sk_pit *pit, u8 val)
{
	struct kvm_pit_channel_state *c;
	int access = (val >> 4) & 3;

	if (val >> 6 == 3) {
		read_back(pit, val);
		return;
	}
	c = &pit->state.channels[val >> 6];
	if (access == 0) {
		latch_count(c);
		return;
	}
	c->rw_mode = access;
	c->read_state = access;
	c->write_state = access;
	c->mode = (val >> 1) & 7;
	if (c->mode > 5)
		c->mode -= 4;
	c->bcd = val & 1;
}

static void data_write(struct sk_pit *pit, int n, u8 val)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[n];

	switch (c->write_state) {
	case RW_HIGH:
		channel_load(pit, n, val << 8);
		break;
	case RW_WORD_LOW:
		c->write_latch = val;
		c->write_state = RW_WORD_HIGH;
		break;
	case RW_WORD_HIGH:
		c->write_state = RW_WORD_LOW;
		channel_load(pit, n, c->write_latch | val << 8);
		break;
	default:
		channel_load(pit, n, val);
	}
}

static u8 latched_read(struct kvm_pit_channel_state *c)
{
	u8 state = c->count_latched;

	c->count_latched = state == RW_WORD_LOW ? RW_HIGH : 0;
	return state == RW_HIGH ? c->latched_count >> 8 : c->latched_count;
}

static u8 data_read(struct kvm_pit_channel_state *c)
{
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched)
		return latched_read(c);
	switch (c->read_state) {
	case RW_HIGH:
		return channel_count(c) >> 8;
	case RW_WORD_LOW:
		c->read_state = RW_WORD_HIGH;
		return channel_count(c);
	case RW_WORD_HIGH:
		c->read_state = RW_WORD_LOW;
		return channel_count(c) >> 8;
	default:
		return channel_count(c);
	}
}

/* A rising gate starts channel 2 again, but in the modes that count on while it is high. */
static void speaker_write(struct sk_pit *pit, u8 val)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[2];
	u8 gate = val & SPEAKER_GATE;

	if (gate && !c->gate && c->mode != 0 && c->mode != 4)
		c->count_load_time = ktime_to_ns(ktime_get());
	c->gate = gate;
	pit->state.flags &= ~KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	if (val & SPEAKER_DATA)
		pit->state.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
}

static u8 speaker_read(const struct sk_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[2];
	u8 refresh = div_u64(ktime_to_ns(ktime_get()), REFRESH_NS) & 1;

	return (pit->state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON ? SPEAKER_DATA : 0) | c->gate |
	       channel_output(c) << 5 | refresh << 4;
}

static void port_io(struct sk_pit *pit, u16 port, bool in, u8 *data)
{
	if (port == 0x61 && in)
		*data = speaker_read(pit);
	else if (port == 0x61)
		speaker_write(pit, *data);
	else if (port == 0x43 && in)
		*data = 0;
	else if (port == 0x43)
		control_write(pit, *data);
	else if (in)
		*data = data_read(&pit->state.channels[port & 3]);
	else
		data_write(pit, port & 3, *data);
}

bool sk_pit_io(struct sk_vm *vm, u16 port, bool in, u8 *data)
{
	struct sk_pit *pit = READ_ONCE(vm->pit);

	if (!pit || !((port & 0xfffc) == 0x40 || (port == 0x61 && pit->speaker)))
		return false;
	spin_lock_irq(&pit->lock);
	port_io(pit, port, in, data);
	spin_unlock_irq(&pit->lock);
	return true;
}

/* ---- state ------------------------------------------------------------------------------------ */

void sk_pit_get(struct sk_pit *pit, struct kvm_pit_state2 *state)
{
	spin_lock_irq(&pit->lock);
	*state = pit->state;
	spin_unlock_irq(&pit->lock);
}

int sk_pit_set(struct sk_pit *pit, const struct kvm_pit_state2 *state)
{
	int i;

	for (i = 0; i < 3; i++)
		if (state->channels[i].count > 0x10000)
			return -EINVAL;
	spin_lock_irq(&pit->lock);
	pit->state = *state;
	memset(pit->state.reserved, 0, sizeof(pit->state.reserved));
	pit->state.channels[0].count_load_time = ktime_to_ns(ktime_get());
	timer_start(pit);
	spin_unlock_irq(&pit->lock);
	return 0;
}

void sk_pit_set_reinject(struct sk_pit *pit, bool on)
{
	spin_lock_irq(&pit->lock);
	pit->discard = !on;
	pit->pending = 0;
	spin_unlock_irq(&pit->lock);
}

/* As after power-on: mode 3 with the longest period on all channels, the speaker's gate closed, no timer yet */
static void power_on(struct sk_pit *pit)
{
	int i;

	for (i = 0; i < 3; i++) {
		struct kvm_pit_channel_state *c = &pit->state.channels[i];

		c->mode = 0xff;
		c->gate = i != 2;
		c->count = 0x10000;
		c->count_load_time = ktime_to_ns(ktime_get());
	}
}

int sk_pit_create(struct sk_vm *vm, u32 flags)
{
	struct sk_pit *pit = kzalloc(sizeof(*pit), GFP_KERNEL_ACCOUNT);

	if (!pit)
		return -ENOMEM;
	pit->vm = vm;
	pit->speaker = flags & KVM_PIT_SPEAKER_DUMMY;
	spin_lock_init(&pit->lock);
	hrtimer_init(&pit->timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	pit->timer.function = timer_fires;
	power_on(pit);
	WRITE_ONCE(vm->pit, pit);
	return 0;
}

void sk_pit_destroy(struct sk_vm *vm)
{
	struct sk_pit *pit = vm->pit;

	if (!pit)
		return;
	spin_lock_irq(&pit->lock);
	timer_stop(pit);
	spin_unlock_irq(&pit->lock);
	hrtimer_cancel(&pit->timer);
	vm->pit = NULL;
	kfree(pit);
}
