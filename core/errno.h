/* SPDX-License-Identifier: BSD-2-Clause */
/* Error numbers, with Linux's values because dom0's kernel receives them. Returned negated. */
#pragma once

#define E_PERM      1
#define E_NOENT     2
#define E_2BIG      7
#define E_AGAIN     11
#define E_NOMEM     12
#define E_FAULT     14
#define E_BUSY      16
#define E_EXIST     17
#define E_NODEV     19
#define E_INVAL     22
#define E_NOSPC     28
#define E_RANGE     34
#define E_NOSYS     38
#define E_OVERFLOW  75
#define E_OPNOTSUPP 95
