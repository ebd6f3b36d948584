// What the types promise; checked by tsc, never run.

import express from 'express'
import { CODES, Rejection, Validator, type Accepted, type RejectionCode } from 'chancery'
import { bearer } from 'chancery/express'

const validator = new Validator({
  issuer: ['https://id.example/a', 'https://id.example/b'],
  audience: 'https://api.example',
  profile: 'strict',
  jwks: { 'https://id.example/a': { keys: [] }, 'https://id.example/b': '{"keys":[]}' },
  leeway: 0,
  maxLifetime: null,
  algorithms: ['ES256', 'ML-DSA-65'],
  log: 'report',
  cache: 10_000,
  bounds: { coolDown: 0.5 },
  onFinding: ({ claims, log }) =>
    console.warn(claims.iss.length, log.verdict === 'forged' && log.proof),
})

const accepted: Accepted = await validator.validate('')
const subject: string = accepted.claims.sub
const tier: unknown = accepted.claims.tier
const own = validator.validateSync<{ tier: 'gold' | 'iron' }>('', { now: 1 })
const metal: 'gold' | 'iron' = own.claims.tier
if (accepted.log?.verdict === 'forged') accepted.log.proof.split('\n')
console.log(subject, tier, metal, (await validator.explain('')).steps[0]?.check)
await validator.ready()
validator.status().issuers.map(({ issuer }) => issuer.length)

try {
  validator.validateSync('')
} catch (error) {
  if (!(error instanceof Rejection)) throw error
  const code: RejectionCode = error.code
  console.log(CODES[code].meaning, error.retryable && error.remedy)
}

const app = express()
app.use(
  bearer(validator, {
    scope: ['read'],
    onRejection: (rejection, req) => [rejection.code, req.url],
  }),
)
app.get('/', (req, res) => void res.json(req.token?.claims.scope?.split(' ')))

// @ts-expect-error a validator has an issuer
new Validator({ audience: 'a' })
// @ts-expect-error an audience is a string
new Validator({ issuer: 'i', audience: 1 })
// @ts-expect-error there is no such setting
new Validator({ issuer: 'i', audience: 'a', audiences: [] })
// @ts-expect-error there is no such algorithm
new Validator({ issuer: 'i', audience: 'a', algorithms: ['none'] })
// @ts-expect-error a token is a string
await validator.validate(undefined)
// @ts-expect-error the claims are there after waiting
validator.validate('').claims
// @ts-expect-error there is no such code
CODES.no_such_code
// @ts-expect-error claims that are not known have no type
accepted.claims.tier.length
