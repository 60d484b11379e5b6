package hcvault

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
)

// InspectKey says whether Vault has the key, whether it is revoked, and when it was made, by
// Vault's clock to the second. The time is that of the oldest version kept.
func (a *Admin) InspectKey(ctx context.Context, keyName string) (found, revoked bool, made time.Time, err error) {
	if err := checkKey(keyName); err != nil {
		return false, false, made, err
	}
	var got struct {
		Data struct {
			key
			Versions map[string]int64 `json:"keys"`
		} `json:"data"`
	}
	err = a.session.do(ctx, http.MethodGet, a.session.srv.path("keys", keyName), nil, &got)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.Absent() {
		return false, false, made, nil
	}
	if err != nil {
		return false, false, made, translate("inspect key "+keyName, err)
	}
	// A revoked key's older versions are not listed any more; the oldest that is says enough.
	for v := got.Data.oldest(); v <= got.Data.Latest; v++ {
		if at, ok := got.Data.Versions[strconv.Itoa(v)]; ok {
			return true, got.Data.revoked(), time.Unix(at, 0).UTC(), nil
		}
	}
	return false, false, made, translate("inspect key "+keyName, errors.New("the answer is not that of a key"))
}
