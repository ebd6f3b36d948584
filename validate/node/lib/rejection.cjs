// Why a token is not acceptable: one closed table, the same in every binding.

'use strict'

const { rejectionCodes } = require('./addon.cjs')

// Every code, in the order of docs/rejections.md.
const CODES = Object.freeze(
  Object.fromEntries(
    JSON.parse(rejectionCodes()).map(([code, told]) => [code, Object.freeze(told)]),
  ),
)

class Rejection extends Error {
  constructor(code, detail) {
    super(`${code}: ${detail}`)
    this.code = code
    this.detail = detail
  }

  get meaning() {
    return CODES[this.code].meaning
  }

  get remedy() {
    return CODES[this.code].remedy
  }

  get retryable() {
    return CODES[this.code].retryable
  }
}

// On the prototype, as for the language's own errors: it is no member of each rejection.
Object.defineProperty(Rejection.prototype, 'name', { value: 'Rejection', configurable: true })

module.exports = { CODES, Rejection }
